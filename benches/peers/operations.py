"""Times tenfold's differentiable operations beside PyTorch's, in turn, in one run.

    VENV/bin/python benches/peers/operations.py --tenfold "cargo bench --bench operations --" [--case NAME] [--threads 2]
        [--reps 15] [--rounds 3] [--json out.json]

A case here has the name, the shapes and the layout of a case in benches/operations/. Both sides print medians; the table shows
the median over the rounds and its ratio to PyTorch.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

CASES = {}


def case(name):
    """Registers a function that makes the operands and returns (forward, leaves): backward is timed on forward().sum()'s
    stand-in, a gradient of ones given to `backward`."""

    def register(function):
        CASES[name] = function
        return function

    return register


@case("matmul-1024")
def matmul():
    a = torch.randn(1024, 1024, requires_grad=True)
    b = torch.randn(1024, 1024, requires_grad=True)
    return (lambda: a @ b), [a, b]


@case("linear-512x768-3072")
def linear():
    x = torch.randn(512, 768, requires_grad=True)
    w = torch.randn(3072, 768, requires_grad=True)
    b = torch.randn(3072, requires_grad=True)
    return (lambda: F.linear(x, w, b)), [x, w, b]


@case("embedding-512-30522x768")
def embedding():
    table = torch.randn(30522, 768, requires_grad=True)
    ids = torch.arange(512) * 7919 % 30522
    return (lambda: F.embedding(ids, table)), [table]


@case("cross-entropy-512x1000")
def cross_entropy():
    z = torch.randn(512, 1000, requires_grad=True)
    labels = torch.arange(512) * 7919 % 1000
    return (lambda: F.cross_entropy(z, labels)), [z]


@case("cross-entropy-64x30522")
def cross_entropy_wide():
    z = torch.randn(64, 30522, requires_grad=True)
    labels = torch.arange(64) * 7919 % 30522
    return (lambda: F.cross_entropy(z, labels)), [z]


@case("tucker-768x768x3x3")
def tucker():
    shapes = [(40, 40, 3, 3), (768, 40), (768, 40), (3, 3), (3, 3)]
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
    core, a, b, c, d = leaves
    # One call, as adapters written in PyTorch make it.
    return (lambda: torch.einsum("abcd,kc,ld,ia,jb->ijkl", core, c, d, a, b)), leaves


@case("bias-mul-4096x768")
def broadcast():
    x = torch.randn(4096, 768, requires_grad=True)
    w = torch.randn(768, requires_grad=True)
    b = torch.randn(768, requires_grad=True)
    return (lambda: x * w + b), [x, w, b]
def unary(name, shape, operation):
    @case(name)
    def operands():
        x = torch.randn(shape, requires_grad=True)
        return (lambda: operation(x)), [x]


unary("gelu-12544x384", (12544, 384), F.gelu)
unary("gelu-tanh-12544x384", (12544, 384), lambda x: F.gelu(x, approximate="tanh"))
unary("silu-12544x384", (12544, 384), F.silu)
unary("tanh-12544x384", (12544, 384), torch.tanh)
unary("relu-12544x384", (12544, 384), F.relu)
unary("exp-12544x384", (12544, 384), torch.exp)
unary("log-softmax-4096x1000", (4096, 1000), lambda x: F.log_softmax(x, -1))
unary("softmax-96x512x512", (96, 512, 512), lambda x: F.softmax(x, -1))
unary("softmax-mode-1-64x512x96", (64, 512, 96), lambda x: F.softmax(x, 1))
unary("dropout-12544x384", (12544, 384), lambda x: F.dropout(x, 0.1, training=True))


def layer_norm(name, rows, n):
    @case(name)
    def operands():
        x, w, b = (torch.randn(shape, requires_grad=True) for shape in [(rows, n), (n,), (n,)])
        return (lambda: F.layer_norm(x, (n,), w, b, 1e-6)), [x, w, b]


layer_norm("layer-norm-12544x96", 12544, 96)
layer_norm("layer-norm-4096x768", 4096, 768)


@case("rms-norm-4096x768")
def rms_norm():
    x, w = torch.randn(4096, 768, requires_grad=True), torch.randn(768, requires_grad=True)
    return (lambda: F.rms_norm(x, (768,), w, 1e-6)), [x, w]


@case("batch-norm-12544x96")
def batch_norm():
    x, w, b = (torch.randn(shape, requires_grad=True) for shape in [(12544, 96), (96,), (96,)])
    mean, variance = torch.randn(96), torch.randn(96).abs()
    return (lambda: F.batch_norm(x, mean, variance, w, b, training=True)), [x, w, b]


@case("affine-4096x768")
def affine():
    x, a, b = (torch.randn(shape, requires_grad=True) for shape in [(4096, 768), (768,), (768,)])
    return lambda: torch.addcmul(b, x, a), [x, a, b]


@case("grn-4x56x56x384")
def grn():
    x, gamma, beta = (torch.randn(shape, requires_grad=True) for shape in [(4, 56, 56, 384), (384,), (384,)])

    def forward():
        norms = torch.linalg.vector_norm(x, ord=2, dim=(1, 2), keepdim=True)
        return gamma * (x * (norms / (norms.mean(dim=-1, keepdim=True) + 1e-6))) + beta + x

    return forward, [x, gamma, beta]


@case("attention-8x12x512x64")
def attention():
    q, k, v = (torch.randn(8, 12, 512, 64, requires_grad=True) for _ in range(3))
    return (lambda: F.scaled_dot_product_attention(q, k, v)), [q, k, v]


@case("attention-bias-8x12x512x64")
def attention_bias():
    q, k, v = (torch.randn(8, 12, 512, 64, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 12, 512, 512, requires_grad=True)
    return (lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias)), [q, k, v, bias]


@case("attention-views-8x197x768")
def attention_views():
    q, k, v = (torch.randn(8, 197, 768, requires_grad=True) for _ in range(3))

    def split(x):
        return x.view(8, 197, 12, 64).transpose(1, 2)

    def forward():
        y = F.scaled_dot_product_attention(split(q), split(k), split(v))
        return y.transpose(1, 2).reshape(8, 197, 768)

    return forward, [q, k, v]


@case("disentangled-2x12x512")
def disentangled():
    """As in transformers' DebertaV2: two gathers, one of them transposed."""
    c2p, p2c = (torch.randn(24, 512, 512, requires_grad=True) for _ in range(2))
    distance = torch.arange(512)[:, None] - torch.arange(512)[None, :]
    far = torch.ceil(torch.log(distance.abs().clamp(min=1) / 128) / torch.log(torch.tensor(511 / 128)) * 127) + 128
    distance = torch.where(distance.abs() <= 128, distance, (far * distance.sign()).long())
    to_position = torch.clamp(distance + 256, 0, 511).expand(24, 512, 512)
    from_position = torch.clamp(-distance + 256, 0, 511).expand(24, 512, 512)

    def forward():
        score = 0.1 * torch.gather(c2p, -1, to_position)
        return score + 0.1 * torch.gather(p2c, -1, from_position).transpose(-1, -2)

    return forward, [c2p, p2c]


def image(*shape):
    """An image in PyTorch's channels_last layout where it has one."""
    x = torch.randn(*shape)
    if x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    if x.dim() == 5:
        x = x.to(memory_format=torch.channels_last_3d)
    return x.requires_grad_()


def convolution(name, x, w, contiguous=False, first=False, **options):
    @case(name)
    def make():
        function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(x)]
        leaves = [image(*x), image(*w), image(w[0])]
        if contiguous:  # PyTorch's own order
            leaves = [leaf.detach().contiguous().requires_grad_() for leaf in leaves]
        if first:  # A first layer: nobody wants the image's gradient.
            leaves[0].requires_grad_(False)
        return (lambda: function(*leaves, **options)), leaves


convolution("conv-3x3-64", (4, 64, 56, 56), (64, 64, 3, 3), padding=1)
convolution("conv-3x3-stride-2", (4, 64, 56, 56), (128, 64, 3, 3), padding=1, stride=2)
convolution("conv-3x3-256", (4, 256, 14, 14), (256, 256, 3, 3), padding=1)
convolution("conv-3x3-groups", (4, 128, 28, 28), (128, 4, 3, 3), padding=1, groups=32)
convolution("conv-7x7-image", (4, 3, 224, 224), (64, 3, 7, 7), first=True, padding=3, stride=2)
convolution("conv-1x1", (4, 96, 56, 56), (384, 96, 1, 1))
convolution("conv-patchify-4x4", (4, 3, 224, 224), (96, 3, 4, 4), first=True, stride=4)
convolution("conv-patchify-2x2", (4, 96, 56, 56), (192, 96, 2, 2), stride=2)
convolution("depthwise-7x7", (4, 96, 56, 56), (96, 1, 7, 7), padding=3, groups=96)
convolution("depthwise-7x7-nchw", (4, 96, 56, 56), (96, 1, 7, 7), contiguous=True, padding=3, groups=96)
convolution("depthwise-7x7-384", (4, 384, 14, 14), (384, 1, 7, 7), padding=3, groups=384)
convolution("depthwise-3x3", (4, 96, 56, 56), (96, 1, 3, 3), padding=1, groups=96)
convolution("depthwise-3x3-stride-2", (4, 96, 56, 56), (96, 1, 3, 3), padding=1, stride=2, groups=96)
convolution("conv-1d", (4, 128, 3000), (128, 128, 3), padding=1)
convolution("conv-3d", (2, 32, 16, 28, 28), (64, 32, 3, 3, 3), padding=1)


@case("conv-transpose-2x2")
def conv_transpose():
    leaves = [image(4, 192, 28, 28), image(192, 96, 2, 2), image(96)]
    return (lambda: F.conv_transpose2d(*leaves, stride=2)), leaves


@case("max-pool-3x3")
def max_pool():
    x = image(4, 64, 112, 112)
    return (lambda: F.max_pool2d(x, 3, stride=2, padding=1)), [x]


@case("avg-pool-2x2")
def avg_pool():
    x = image(4, 64, 112, 112)
    return (lambda: F.avg_pool2d(x, 2)), [x]


@case("bilinear-2x")
def bilinear():
    x = image(4, 64, 56, 56)
    return (lambda: F.interpolate(x, size=(112, 112), mode="bilinear", align_corners=False)), [x]


def median_ms(run, reps):
    # As long as in benches/operations/main.rs.
    start = time.perf_counter()
    run()
    run()
    while time.perf_counter() - start < 0.2:
        run()
    times = []
    for _ in range(reps):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def time_torch(name, reps):
    forward, leaves = CASES[name]()
    with torch.no_grad():
        seed = torch.ones_like(forward())
        plain = median_ms(forward, reps)

    def both():
        for leaf in leaves:
            leaf.grad = None
        forward().backward(seed)

    return {"forward_ms": plain, "both_ms": median_ms(both, reps)}


def time_tenfold(command, name, threads, reps):
    words = shlex.split(command) + ["--case", name, "--threads", str(threads), "--reps", str(reps)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenfold", required=True)
    parser.add_argument("--case")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    names = [options.case] if options.case else list(CASES)
    print("| operation | PyTorch forward | tenfold | ratio | PyTorch forward + backward | tenfold | ratio |")
    print("|---|---|---|---|---|---|---|")
    results = []
    for name in names:
        rounds = [
            (time_torch(name, options.reps), time_tenfold(options.tenfold, name, options.threads, options.reps))
            for _ in range(options.rounds)
        ]
        row = {"case": name}
        cells = [name]
        for key in ("forward_ms", "both_ms"):
            theirs = statistics.median(torch_side[key] for torch_side, _ in rounds)
            ours = statistics.median(our_side[key] for _, our_side in rounds)
            row |= {f"torch_{key}": theirs, f"tenfold_{key}": ours}
            cells += [f"{theirs:.2f}", f"{ours:.2f}", f"{ours / theirs:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
        results.append(row)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
