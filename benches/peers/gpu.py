"""Times on one GPU what benches/gpu/ times, in PyTorch (eager and torch.compile) and in TensorLy on torch, by CUDA events.

    VENV/bin/python benches/peers/gpu.py [--case NAME] [--groups 15] [--no-compile] [--tenfold BENCH] [--table out.md]

A case has the name and the shapes of one in benches/gpu/. A group of calls, long enough to take some milliseconds, lies between two events; printed is
the median over the groups, by call. Images are NHWC in memory (torch.channels_last), as tenfold's are. Precisions: "f32" turns TF32 off in cuBLAS and
cuDNN, "tf32" on, "bf16" runs under autocast. TensorLy's cases run where it can be imported. BENCH is the command of tenfold's own benchmark, as
"cargo bench --bench gpu --" or the program that this builds: it runs first, and the table has both.
"""

import argparse
import datetime
import json
import re
import shlex
import statistics
import subprocess

import torch
import torch.nn.functional as F

CASES = {}


def case(name, precision="f32"):
    """Registers a function that makes the operands and returns what to time."""

    def register(function):
        CASES[name] = (precision, function)
        return function

    return register


def randn(*shape, grad=False):
    return torch.randn(*shape, device="cuda", requires_grad=grad)


# Products: benches/gpu/products.rs

for m, k, n in [(4096, 768, 3072), (4096, 4096, 4096)]:
    for precision in ["f32", "tf32", "bf16"]:

        @case(f"gemm-{m}x{k}x{n}-{precision}", precision)
        def gemm(m=m, k=k, n=n):
            # A weight as nn.Linear stores it.
            a, b = randn(m, k), randn(n, k)
            return lambda: F.linear(a, b)


for mode in range(3):
    for precision in ["f32", "tf32"]:

        @case(f"mode-product-{mode}-512-{precision}", precision)
        def mode_product(mode=mode):
            x, m = randn(512, 512, 512), randn(32, 512)
            return lambda: torch.tensordot(m, x, dims=([1], [mode])).movedim(0, mode)

    @case(f"gram-{mode}-512")
    def gram(mode=mode):
        x = randn(512, 512, 512)

        def run():
            unfolded = x.movedim(mode, 0).reshape(512, -1)
            return unfolded @ unfolded.T

        return run


try:
    import tensorly
    from tensorly.decomposition import non_negative_parafac_hals, non_negative_tucker_hals, parafac, tucker

    tensorly.set_backend("pytorch")

    @case("st-hosvd-512-32")
    def hosvd():
        # Its truncated HOSVD is the start of its Tucker decomposition.
        x = randn(512, 512, 512)
        return lambda: tucker(x, rank=[32] * 3, init="svd", n_iter_max=0, tol=0)

    @case("hooi-10-256-16")
    def hooi():
        x = randn(256, 256, 256)
        return lambda: tucker(x, rank=[16] * 3, init="svd", n_iter_max=10, tol=0)

    @case("cp-als-10-256-16")
    def cp_als():
        x = randn(256, 256, 256)
        return lambda: parafac(x, rank=16, n_iter_max=10, init="random", tol=0, random_state=7)

    @case("tucker-amounts-10-256-16")
    def tucker_amounts():
        x = randn(256, 256, 256).abs()
        return lambda: non_negative_tucker_hals(x, rank=[16] * 3, n_iter_max=10, init="random", tol=0, random_state=7)

    @case("cp-amounts-10-256-16")
    def cp_amounts():
        x = randn(256, 256, 256).abs()
        return lambda: non_negative_parafac_hals(x, rank=16, n_iter_max=10, init="random", tol=0, random_state=7)

    @case("cp-holes-10-256-16")
    def cp_holes():
        # Every tenth entry is missing.
        x, i = randn(256, 256, 256), torch.arange(256, device="cuda")
        mask = ((i[:, None, None] + i[:, None] + i) % 10 != 0).to(x.dtype)
        return lambda: parafac(x * mask, rank=16, n_iter_max=10, init="random", tol=0, random_state=7, mask=mask)

except ImportError as error:
    print(f"no TensorLy here ({error}): its cases are left out")


# Convolutions and attention: benches/gpu/conv.rs

def image(b, h, w, c):
    return randn(b, c, h, w).contiguous(memory_format=torch.channels_last)


def backward_of(y_of, inputs):
    """The backward pass alone, of inputs that have gradients."""
    y = y_of()
    slopes = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, inputs, slopes, retain_graph=True)


def depthwise(h, c):
    name = f"depthwise-7x7-16x{h}x{h}x{c}"

    def operands(x_grad=False, w_grad=False):
        x = image(16, h, h, c).requires_grad_(x_grad)
        w = randn(c, 1, 7, 7, grad=w_grad)
        return x, w, (lambda: F.conv2d(x, w, padding=3, groups=c))

    @case(f"{name}-forward")
    def forward():
        return operands()[2]

    @case(f"{name}-input")
    def by_input():
        x, _, y_of = operands(x_grad=True)
        return backward_of(y_of, [x])

    @case(f"{name}-weight")
    def by_weight():
        _, w, y_of = operands(w_grad=True)
        return backward_of(y_of, [w])


depthwise(56, 192)
depthwise(14, 768)


def dense(name, x_shape, w_shape, **options):
    for precision in ["f32", "tf32", "bf16"]:

        @case(f"{name}-forward-{precision}", precision)
        def forward():
            x, w = image(*x_shape), randn(*w_shape)
            return lambda: F.conv2d(x, w, **options)

        @case(f"{name}-backward-{precision}", precision)
        def backward():
            x, w = image(*x_shape).requires_grad_(), randn(*w_shape, grad=True)
            return backward_of(lambda: F.conv2d(x, w, **options), [x, w])


dense("conv-3x3-16x56x56x64", (16, 56, 56, 64), (64, 64, 3, 3), padding=1)
dense("conv-3x3-16x14x14x256", (16, 14, 14, 256), (256, 256, 3, 3), padding=1)
dense("conv-2x2-stride-2-16x56x56x192", (16, 56, 56, 192), (384, 192, 2, 2), stride=2)

for precision in ["f32", "tf32", "bf16"]:

    @case(f"attention-32x12x128x64-forward-{precision}", precision)
    def attention_forward():
        q, k, v = (randn(32, 12, 128, 64) for _ in range(3))
        return lambda: F.scaled_dot_product_attention(q, k, v)

    @case(f"attention-32x12x128x64-backward-{precision}", precision)
    def attention_backward():
        q, k, v = (randn(32, 12, 128, 64, grad=True) for _ in range(3))
        return backward_of(lambda: F.scaled_dot_product_attention(q, k, v), [q, k, v])


# Rows: benches/gpu/rows.rs

def grn(x, weight, bias):
    """timm.layers.GlobalResponseNorm of an NHWC image."""
    norm = x.norm(p=2, dim=(1, 2), keepdim=True)
    share = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
    return x + torch.addcmul(bias, weight, x * share)


def both(name, shapes, vectors, function):
    """A forward and a backward case for every shape; vectors of the last mode's size come as further operands."""
    for shape in shapes:

        def operands(grad, shape=shape):
            return [randn(*shape, grad=grad)] + [randn(shape[-1], grad=grad) for _ in range(vectors)]

        @case(f"{name} {list(shape)} forward")
        def forward(operands=operands):
            held = operands(False)
            return lambda: function(*held)

        @case(f"{name} {list(shape)} backward")
        def backward(operands=operands):
            held = operands(True)
            return backward_of(lambda: function(*held), held)


TOKENS = [(32, 128, 768), (32, 128, 3072), (128, 512, 768)]
IMAGES = [(16, 56, 56, 192), (16, 28, 28, 384), (16, 14, 14, 768), (16, 7, 7, 1536)]
INNER = [(16, 56, 56, 768), (16, 28, 28, 1536), (16, 14, 14, 3072), (16, 7, 7, 6144)]

both("gelu", TOKENS + INNER, 0, F.gelu)
both("layer_norm", TOKENS + IMAGES, 2, lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b, 1e-6))
both("grn", INNER, 2, grn)
both("softmax", [(32, 12, 128, 128), (8, 12, 512, 512), (4096, 1000), (64, 50000)], 0, lambda x: F.softmax(x, -1))
both("dropout", TOKENS, 0, lambda x: F.dropout(x, 0.1, training=True))

for rows, classes in [(4096, 1000), (4096, 32000), (1024, 128000)]:

    @case(f"cross_entropy [{rows}, {classes}] and gradient")
    def cross_entropy(rows=rows, classes=classes):
        z, labels = randn(rows, classes, grad=True), torch.randint(classes, (rows,), device="cuda")
        return lambda: torch.autograd.grad(F.cross_entropy(z, labels), z)


@case("adamw of 200 M parameters, with the norm")
def adamw():
    parameters = [torch.nn.Parameter(randn(1_000_000)) for _ in range(200)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step():
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    return step


def set_precision(precision):
    torch.backends.cuda.matmul.allow_tf32 = precision != "f32"
    torch.backends.cudnn.allow_tf32 = precision != "f32"


def timed(run, groups):
    """Milliseconds a call: the median over groups of calls between two events."""
    run()
    torch.cuda.synchronize()

    def group(calls):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / calls

    once = group(1)
    calls = max(1, min(200, int(5.0 / max(once, 1e-3))))
    # Time on the device is short: the slowest cases are taken three times.
    return statistics.median(group(calls) for _ in range(groups if once < 100 else 3))


def measure(name, groups, compiled):
    precision, make = CASES[name]
    set_precision(precision)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
        run = make()
        found = {"case": name, "eager_ms": timed(run, groups)}
        # A backward pass of a recorded graph, an optimiser's step and TensorLy's loops are not functions to compile.
        plain = not any(part in name for part in ["backward", "-input", "-weight", "gradient", "adamw", "hosvd", "hooi", "cp-als", "amounts", "holes"])
        if compiled and plain:
            found["compiled_ms"] = timed(torch.compile(run), groups)
    return found


def tenfold(command, part):
    """What tenfold's benchmark prints: microseconds and the share of the floor, in percent, by case."""
    printed = subprocess.run(shlex.split(command) + ([part] if part else []), capture_output=True, text=True, check=True).stdout
    print(printed, flush=True)
    lines = re.finditer(r"^(\S.*?)\s+([\d.]+) us .* (\d+) %$", printed, re.MULTILINE)
    return {line[1]: (float(line[2]), int(line[3])) for line in lines}


def table(ours, results, title):
    """Markdown, a line for each case that both have."""
    lines = [title, "", "| case | tenfold, us | of the floor | eager or TensorLy, us | ratio | compiled, us |", "|---|---:|---:|---:|---:|---:|"]
    for result in results:
        name = result["case"]
        if name not in ours or "eager_ms" not in result:
            continue
        (mine, share), theirs = ours[name], result["eager_ms"] * 1e3
        compiled = f"{result['compiled_ms'] * 1e3:.4g}" if "compiled_ms" in result else ""
        lines.append(f"| {name} | {mine:.4g} | {share} % | {theirs:.4g} | {mine / theirs:.2f} | {compiled} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", help="part of a name")
    parser.add_argument("--groups", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--tenfold", help="the command of tenfold's benchmark")
    parser.add_argument("--table", help="where the table goes")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        return print("skipped: no GPU here")
    title = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, PyTorch {torch.__version__}, {datetime.date.today()}"
    print(title)
    ours = tenfold(arguments.tenfold, arguments.case) if arguments.tenfold else {}
    torch.backends.cudnn.benchmark = True
    results = []
    for name in CASES:
        if arguments.case and arguments.case not in name:
            continue
        try:
            result = measure(name, arguments.groups, not arguments.no_compile)
        except Exception as error:  # One case that fails must not cost the others their time on the device.
            result = {"case": name, "error": f"{type(error).__name__}: {error}"[:300]}
        results.append(result)
        print(json.dumps(result), flush=True)
        torch.cuda.empty_cache()
    if arguments.table:
        with open(arguments.table, "w") as file:
            file.write(table(ours, results, title))


if __name__ == "__main__":
    main()
