"""Times training steps of ConvNeXt-V2 and DeBERTa-v3 on a GPU, in tenfold beside PyTorch, in turn, in one run.

    python3 benches/peers/gpu_steps.py --tenfold BENCH [--cases convnextv2-large:16,deberta-v3-base:32x128] [--method flora,lora,full]
        [--precision tf32,bf16] [--reps 20] [--compile] [--json out.json]

BENCH is the program that `cargo bench --bench models --no-run` builds. A case is a model and its batch: images of 224 x 224, or texts x
tokens. Models and methods are those of `models.py`; every measurement is a process of its own. In PyTorch, `tf32` allows TF32 in
products and convolutions, `bf16` is autocast; AdamW is the fused one. Times are medians of whole steps (forward, backward, AdamW) by
events on the device; memory is the most that tensors took on the device (`max_memory_allocated`).
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys

import models


def measure(arguments):
    """One case, method and precision in PyTorch; prints a line of JSON."""
    import torch

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = arguments.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = arguments.precision == "tf32"
    model, inputs = models.build(arguments, torch)
    model, inputs = model.cuda(), {name: value.cuda() for name, value in inputs.items()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    forward = torch.compile(model) if arguments.compile else model

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=arguments.precision == "bf16"):
            loss = forward(**inputs).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for _ in range(5):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(arguments.reps):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        step()
        events[1].record()
        events[1].synchronize()
        times.append(events[0].elapsed_time(events[1]) / 1e3)
    record = {"seconds": statistics.median(times), "trainable": sum(p.numel() for p in parameters)}
    record["device_memory_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(record))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenfold", required=False)
    parser.add_argument("--cases", default="convnextv2-large:16,deberta-v3-base:32x128")
    parser.add_argument("--method", default="flora,lora,full")
    parser.add_argument("--precision", default="tf32,bf16")
    parser.add_argument("--reps", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--json")
    parser.add_argument("--measure", help="one case in PyTorch alone", action="store_true")
    arguments = parser.parse_args()
    if arguments.measure:
        model, batch = arguments.cases.split(":")
        arguments.model = model
        arguments.batch, _, length = batch.partition("x")
        arguments.batch, arguments.length, arguments.image = int(arguments.batch), int(length or 0), 224
        return measure(arguments)
    results = []
    print(f"| case | method | precision | tenfold ms | PyTorch ms | compiled ms | ratio | tenfold MiB | PyTorch MiB |\n|{'---|' * 9}")
    for case in arguments.cases.split(","):
        for method in arguments.method.split(","):
            for precision in arguments.precision.split(","):
                theirs = [sys.executable, __file__, "--measure", "--cases", case, "--method", method, "--precision", precision]
                theirs += ["--reps", str(arguments.reps)]
                model, batch = case.split(":")
                batch, _, length = batch.partition("x")
                ours = shlex.split(arguments.tenfold) + ["--model", model, "--batch", batch, "--method", method, "--json"]
                ours += ["--device", "cuda:0", "--precision", precision, "--reps", str(arguments.reps)]
                ours += ["--length", length] if length else []
                row = {"case": case, "method": method, "precision": precision}
                for name, command in [("tenfold", ours), ("torch", theirs), ("compiled", theirs + ["--compile"])]:
                    if name == "compiled" and not arguments.compile:
                        continue
                    try:
                        row[name] = models.run(command)
                    except Exception as error:  # the other rows are still wanted
                        print(f"{case} {method} {precision} {name}: {error}", file=sys.stderr)
                results.append(row)

                def shown(side, key, unit):
                    return f"{row[side][key] / unit:.2f}" if key in row.get(side, {}) else "-"

                ratio = row["tenfold"]["seconds"] / row["torch"]["seconds"] if "tenfold" in row and "torch" in row else float("nan")
                print(
                    f"| {case} | {method} | {precision} | {shown('tenfold', 'seconds', 1e-3)} | {shown('torch', 'seconds', 1e-3)} | "
                    f"{shown('compiled', 'seconds', 1e-3)} | {ratio:.2f} | {shown('tenfold', 'device_memory_bytes', 2**20)} | "
                    f"{shown('torch', 'device_memory_bytes', 2**20)} |",
                    flush=True,
                )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
