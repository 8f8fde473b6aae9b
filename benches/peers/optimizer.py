#!/usr/bin/env python3
"""Times PyTorch's optimisers on the parameters of benches/train.rs, step with clipping, and prints one line of JSON for each.

usage: optimizer.py [--threads 2] [--reps 15]
"""

import argparse
import json
import statistics
import time

import torch

RULES = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=1e-4, amsgrad=True, fused=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-4, fused=True),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n = 384
    block = [(4 * n, n), (4 * n,), (n, 4 * n), (n,)] + [(n, n), (n,)] * 4 + [(n,)] * 4
    for name, rule in RULES.items():
        parameters = [torch.full(shape, 0.5, requires_grad=True) for _ in range(14) for shape in block]
        optimiser = rule(parameters)
        times, alone = [], []
        for rep in range(options.reps + 2):
            for p in parameters:
                p.grad = torch.full_like(p, 1e-3)
            start = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            between = time.perf_counter()
            optimiser.step()
            end = time.perf_counter()
            if rep >= 2:
                times.append((end - start) * 1e3)
                alone.append((end - between) * 1e3)
        line = {"rule": name, "parameters": sum(p.numel() for p in parameters), "tensors": len(parameters),
                "step_ms": round(statistics.median(times), 2), "without_clipping_ms": round(statistics.median(alone), 2)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
