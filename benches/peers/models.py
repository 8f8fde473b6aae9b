"""Times one training step of ConvNeXt-V2 or DeBERTa-v3, forward, backward and AdamW, in tenfold beside PyTorch, in turn, in one run.

    VENV/bin/python benches/peers/models.py --tenfold "cargo bench --bench models --" [--model convnextv2-atto,convnextv2-tiny]
        [--method full,flora,lora] [--batch 4] [--image 224] [--length 64] [--threads 2] [--reps 5] [--rounds 3] [--json out.json]

Every measurement is a process of its own, so that each has its own peak of memory. PyTorch runs transformers' model:

    full    every parameter trains
    flora   images: ranks 8 (channels) and 2 (kernel) on every layer but the classifier, as one operation with W0 + delta;
            texts: rank 8 on the linear layers of blocks, by three thin products beside the layer
    lora    PEFT, rank 8, on the linear layers of blocks
    dora    the same with DoRA

The head always trains. Texts have the configuration's dropout. The table shows medians over the rounds and their ratios.
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


DEBERTA = {"xsmall": (384, 12, 6), "small": (768, 6, 12), "base": (768, 12, 12), "large": (1024, 24, 16)}


def adapted(model, torch, chosen, head, factored):
    """Every convolution and linear layer that is chosen with a Tucker form, core zero, factors random: as one operation with W0 + delta,
    or, linear layers alone, by three thin products beside the layer."""
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
            if factored:
                return self.base(x) + 4 * F.linear(F.linear(F.linear(x, self.factors[0].t()), self.core.t()), self.factors[1])
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
        if isinstance(child, (nn.Linear, nn.Conv2d)) and chosen(f"{path}.{name}" if path else name)
    ]
    for parent, name in places:
        child = getattr(parent, name)
        replacement = Flora(child)
        if isinstance(parent, nn.ModuleList):
            parent[int(name)] = replacement
        else:
            setattr(parent, name, replacement)
    for name in head:
        getattr(model, name).requires_grad_(True)
    return model


def convnext(arguments, torch):
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    sizes, depths = SIZES[arguments.model.removeprefix("convnextv2-")]
    model = ConvNextV2ForImageClassification(ConvNextV2Config(hidden_sizes=sizes, depths=depths, num_labels=1000))
    images = torch.randn(arguments.batch, 3, arguments.image, arguments.image)
    labels = torch.arange(arguments.batch) * 7919 % 1000
    inputs = {"pixel_values": images, "labels": labels}
    return model, inputs, lambda name: name != "classifier", ["pwconv1", "pwconv2"], ["classifier"]


def deberta(arguments, torch):
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    width, layers, heads = DEBERTA[arguments.model.removeprefix("deberta-v3-")]
    config = DebertaV2Config(
        vocab_size=128100, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
        max_position_embeddings=512, type_vocab_size=0, relative_attention=True, max_relative_positions=-1, position_buckets=256,
        pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False, layer_norm_eps=1e-7,
        pooler_dropout=0, pooler_hidden_act="gelu", pooler_hidden_size=width, num_labels=2,
    )  # fmt: skip
    ids = torch.randint(3, 100_000, (arguments.batch, arguments.length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(arguments.batch) % 2}
    linears = r".*encoder\.layer\..*(query_proj|key_proj|value_proj|dense)"
    chosen = lambda name: name.startswith("deberta.encoder.layer")  # noqa: E731
    return DebertaV2ForSequenceClassification(config), inputs, chosen, linears, ["pooler", "classifier"]


def build(arguments, torch):
    """The model with its method, in training mode, and its inputs."""
    make = convnext if arguments.model.startswith("convnext") else deberta
    model, inputs, chosen, linears, head = make(arguments, torch)
    if arguments.method == "flora":
        model = adapted(model, torch, chosen, head, factored=make is deberta)
    if arguments.method in ("lora", "dora"):
        from peft import LoraConfig, get_peft_model

        dora = arguments.method == "dora"
        config = LoraConfig(r=8, lora_alpha=8, target_modules=linears, modules_to_save=head, use_dora=dora)
        model = get_peft_model(model, config)
    return model.train(), inputs


def measure(arguments):
    """One model and method in PyTorch; prints a line of JSON."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model, inputs = build(arguments, torch)
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
    parser.add_argument("--model", default="convnextv2-atto,convnextv2-tiny")
    parser.add_argument("--method", default="full,flora,lora")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--measure", action="store_true", help="one model and method in PyTorch alone")
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments)
    cases = [(model, method) for model in arguments.model.split(",") for method in arguments.method.split(",")]
    results = {case: {"tenfold": [], "torch": []} for case in cases}
    for _ in range(arguments.rounds):
        for model, method in cases:
            shared = ["--model", model, "--method", method]
            for name in ("batch", "image", "length", "threads", "reps"):
                shared += [f"--{name}", str(getattr(arguments, name))]
            results[model, method]["tenfold"].append(run(shlex.split(arguments.tenfold) + shared + ["--json"]))
            results[model, method]["torch"].append(run([sys.executable, __file__, "--measure", *shared]))
    print(f"| model | method | train | tenfold s | PyTorch s | ratio | tenfold MiB | PyTorch MiB |\n|{'---|' * 8}")
    for (model, method), sides in results.items():
        trainable = {record["trainable"] for records in sides.values() for record in records}
        assert len(trainable) == 1, f"{model} {method}: {trainable} parameters train"

        def median(side, key):
            return statistics.median(record[key] for record in sides[side])

        ours, theirs = median("tenfold", "seconds"), median("torch", "seconds")
        memory = " | ".join(f"{median(side, 'peak_memory_bytes') / 2**20:.0f}" for side in ("tenfold", "torch"))
        print(f"| {model} | {method} | {trainable.pop()} | {ours:.4f} | {theirs:.4f} | {ours / theirs:.2f} | {memory} |")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump([{"model": name, "method": method, **sides} for (name, method), sides in results.items()], file, indent=1)


if __name__ == "__main__":
    main()
