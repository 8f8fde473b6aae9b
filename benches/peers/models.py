"""Times one training step of ConvNeXt-V2 or DeBERTa-v3, forward, backward and AdamW, in tenfold beside PyTorch, in turn, in one run.

    VENV/bin/python benches/peers/models.py --tenfold "cargo bench --bench models --" [--size atto,tiny] [--method full,flora,lora]
        [--batch 4] [--image 224] [--threads 2] [--reps 5] [--rounds 3] [--json out.json]
    VENV/bin/python benches/peers/models.py --model deberta-v3 --size base --batch 8 --tokens 64 --method full,flora,lora,dora

Every measurement is a process of its own, so that each has its own peak of memory. PyTorch runs transformers' model, with the dropout
of its configuration:

    full    every parameter trains
    flora   ConvNeXt: ranks 8 (channels) and 2 (kernel) on every layer but the classifier, as one operation with W0 + delta;
            DeBERTa: rank 8 on the linear layers of blocks, by three thin products beside the layer
    lora    PEFT, rank 8, on the linear layers of blocks
    dora    the same with magnitudes

The head always trains. The table shows medians over the rounds and their ratios.
"""

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import time

SIZES = {
    "atto": ([40, 80, 160, 320], [2, 2, 6, 2]),
    "femto": ([48, 96, 192, 384], [2, 2, 6, 2]),
    "pico": ([64, 128, 256, 512], [2, 2, 6, 2]),
    "nano": ([80, 160, 320, 640], [2, 2, 8, 2]),
    "tiny": ([96, 192, 384, 768], [3, 3, 9, 3]),
    "base": ([128, 256, 512, 1024], [3, 3, 27, 3]),
    "large": ([192, 384, 768, 1536], [3, 3, 27, 3]),
}


# Width, blocks, heads.
DEBERTA = {"xsmall": (384, 12, 6), "small": (768, 6, 12), "base": (768, 12, 12), "large": (1024, 24, 16)}
DEBERTA_LINEARS = ["query_proj", "key_proj", "value_proj", "output.dense", "intermediate.dense"]


def adapted(model, torch):
    """Every convolution and linear layer but the classifier with its weight plus a Tucker form, core zero, factors random."""
    nn, F = torch.nn, torch.nn.functional

    class Flora(nn.Module):
        def __init__(self, base):
            super().__init__()
            shape = base.weight.shape
            modes = [shape[1], shape[0], *shape[2:]]
            ranks = [8, 8, *[2] * (len(shape) - 2)]
            self.base = base
            self.core = nn.Parameter(torch.zeros(ranks))
            self.factors = nn.ParameterList(torch.randn(n, r) * (0.5 / r) ** 0.5 for n, r in zip(modes, ranks))

        def forward(self, x):
            delta = self.core
            for factor in self.factors:
                delta = torch.tensordot(delta, factor, dims=[[0], [1]])
            weight, base = self.base.weight + 4 * delta.transpose(0, 1), self.base
            if isinstance(base, nn.Linear):
                return F.linear(x, weight, base.bias)
            return F.conv2d(x, weight, base.bias, base.stride, base.padding, base.dilation, base.groups)

    model.requires_grad_(False)
    places = [
        (parent, name)
        for path, parent in model.named_modules()
        for name, child in parent.named_children()
        if isinstance(child, (nn.Linear, nn.Conv2d)) and name != "classifier"
    ]
    for parent, name in places:
        child = getattr(parent, name)
        replacement = Flora(child)
        if isinstance(parent, nn.ModuleList):
            parent[int(name)] = replacement
        else:
            setattr(parent, name, replacement)
    model.classifier.requires_grad_(True)
    return model


def factored(model, torch):
    """Every linear layer of blocks with x A1 G^T A2^T beside it, core zero, factors random."""
    nn, F = torch.nn, torch.nn.functional

    class Flora(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.core = nn.Parameter(torch.zeros(8, 8))
            self.first = nn.Parameter(torch.randn(8, base.in_features) * 0.25)
            self.second = nn.Parameter(torch.randn(base.out_features, 8) * 0.25)

        def forward(self, x):
            return self.base(x) + 4 * F.linear(F.linear(F.linear(x, self.first), self.core), self.second)

    model.requires_grad_(False)
    for path, parent in list(model.deberta.encoder.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Flora(child))
    model.pooler.requires_grad_(True)
    model.classifier.requires_grad_(True)
    return model


def deberta(arguments, torch):
    """The model, its inputs."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    width, blocks, heads = DEBERTA[arguments.size]
    config = DebertaV2Config(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        position_biased_input=False,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
    )
    model = DebertaV2ForSequenceClassification(config).train()
    if arguments.method == "flora":
        model = factored(model, torch)
    if arguments.method in ("lora", "dora"):
        from peft import LoraConfig, get_peft_model

        options = dict(r=8, lora_alpha=8, use_dora=arguments.method == "dora", modules_to_save=["pooler", "classifier"])
        # Of the blocks alone: the pooler has a layer of this name too.
        targets = r"deberta\.encoder\.layer\..*(" + "|".join(name.replace(".", r"\.") for name in DEBERTA_LINEARS) + ")"
        model = get_peft_model(model, LoraConfig(target_modules=targets, **options))
    shape = (arguments.batch, arguments.tokens)
    ids = (torch.arange(1, shape[0] * shape[1] + 1) * 7919 % config.vocab_size).reshape(shape)
    inputs = dict(input_ids=ids, attention_mask=torch.ones(shape, dtype=torch.long), labels=torch.arange(shape[0]) % 2)
    return model, inputs


def convnext(arguments, torch):
    """The model, its inputs."""
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    sizes, depths = SIZES[arguments.size]
    model = ConvNextV2ForImageClassification(ConvNextV2Config(hidden_sizes=sizes, depths=depths, num_labels=1000)).train()
    if arguments.method == "flora":
        model = adapted(model, torch)
    if arguments.method in ("lora", "dora"):
        from peft import LoraConfig, get_peft_model

        options = dict(r=8, lora_alpha=8, use_dora=arguments.method == "dora", modules_to_save=["classifier"])
        model = get_peft_model(model, LoraConfig(target_modules=["pwconv1", "pwconv2"], **options))
    images = torch.randn(arguments.batch, 3, arguments.image, arguments.image)
    return model, dict(pixel_values=images, labels=torch.arange(arguments.batch) * 7919 % 1000)


def measure(arguments):
    """One size and method in PyTorch; prints a line of JSON."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model, inputs = (deberta if arguments.model == "deberta-v3" else convnext)(arguments, torch)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    rows = []
    for _ in range(arguments.reps + 2):
        times = [time.perf_counter()]
        loss = model(**inputs).loss
        times.append(time.perf_counter())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        times.append(time.perf_counter())
        optimizer.step()
        times.append(time.perf_counter())
        rows.append([times[3] - times[0], *(b - a for a, b in zip(times, times[1:]))])
    medians = [statistics.median(column) for column in zip(*rows[2:])]
    record = dict(zip(["seconds", "forward", "backward", "update"], medians))
    record["trainable"] = sum(p.numel() for p in parameters)
    record["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(record))


def run(command):
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenfold", default="cargo bench --bench models --")
    parser.add_argument("--model", default="convnextv2", choices=["convnextv2", "deberta-v3"])
    parser.add_argument("--size", default="atto,tiny")
    parser.add_argument("--method", default="full,flora,lora")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--measure", action="store_true", help="one size and method in PyTorch alone")
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments)
    cases = [(size, method) for size in arguments.size.split(",") for method in arguments.method.split(",")]
    results = {case: {"tenfold": [], "torch": []} for case in cases}
    for _ in range(arguments.rounds):
        for size, method in cases:
            shared = ["--model", arguments.model, "--size", size, "--method", method]
            for name in ("batch", "image", "tokens", "threads", "reps"):
                shared += [f"--{name}", str(getattr(arguments, name))]
            results[size, method]["tenfold"].append(run(shlex.split(arguments.tenfold) + shared + ["--json"]))
            results[size, method]["torch"].append(run([sys.executable, __file__, "--measure", *shared]))
    print(f"| model | method | train | tenfold s | PyTorch s | ratio | tenfold MiB | PyTorch MiB |\n|{'---|' * 8}")
    for (size, method), sides in results.items():
        trainable = {record["trainable"] for records in sides.values() for record in records}
        assert len(trainable) == 1, f"{size} {method}: {trainable} parameters train"

        def median(side, key):
            return statistics.median(record[key] for record in sides[side])

        ours, theirs = median("tenfold", "seconds"), median("torch", "seconds")
        memory = " | ".join(f"{median(side, 'peak_memory_bytes') / 2**20:.0f}" for side in ("tenfold", "torch"))
        print(f"| {size} | {method} | {trainable.pop()} | {ours:.4f} | {theirs:.4f} | {ours / theirs:.2f} | {memory} |")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump([{"size": s, "method": m, **sides} for (s, m), sides in results.items()], file, indent=1)


if __name__ == "__main__":
    main()
