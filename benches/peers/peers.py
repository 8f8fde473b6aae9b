#!/usr/bin/env python3
"""Time one case in one library and print one line of JSON.

usage: peers.py --data DIR --library LIBRARY --case CASE --dtype f64|f32 [--threads 2] [--reps 5] [--max-seconds 60]

DIR is what generate.py wrote. One untimed call comes first; then `reps` calls are timed (fewer, but at least one, once
`--max-seconds` are spent). `relative_error` is computed in float64, outside the timing, from the last result: of a
decomposition the norm of the input minus the reconstruction over the norm of the input; of a mode product the distance
from numpy's product in float64 over the norm of that. A library without such an algorithm prints
{"unsupported": true} with the case.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

LIBRARIES = ("tensorly-numpy", "tensorly-torch", "pyttb")

# problem: (input, Tucker ranks)
TUCKER_PROBLEMS = {
    "200": ("tk3", (20, 20, 20)),
    "64x4": ("tk4", (8, 8, 8, 8)),
    "pines": ("indian_pines", (30, 30, 10)),
}
# problem: (input, rank); the start of mode n is INPUT_init{n}
CP_PROBLEMS = {"200": ("cp3", 20), "64x4": ("cp4", 16)}
SWEEPS = 10

CASES = (
    *(f"mode-product-{mode}" for mode in range(3)),
    *("hosvd-200", "st-hosvd-200", "hooi-200", "cp-als-200"),
    *("tucker-amounts-200", "cp-amounts-200", "cp-holes-200"),
    *("hosvd-64x4", "st-hosvd-64x4", "hooi-64x4", "cp-als-64x4"),
    *("hosvd-pines", "st-hosvd-pines"),
)


class Unsupported(Exception):
    """The library has no such algorithm."""


def limit_threads(count):
    """Must run before numpy is loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(count)
    # Let OpenBLAS pick its kernels for this processor: these make it use others.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)


class TensorLy:
    """TensorLy with its numpy or its PyTorch backend. Its HOSVD is the start of its Tucker decomposition, that is, no sweep."""

    def __init__(self, backend, threads):
        import tensorly as tl

        tl.set_backend(backend)
        self.tl = tl
        self.version = f"tensorly {tl.__version__}"
        if backend == "pytorch":
            import torch

            torch.set_num_threads(threads)
            self.version += f", torch {torch.__version__}"

    def load(self, array):
        return self.tl.tensor(array)

    def mode_product(self, x, matrix, mode):
        from tensorly.tenalg import mode_dot

        return lambda: mode_dot(x, matrix, mode), self.tl.to_numpy

    def tucker(self, x, ranks, sweeps):
        from tensorly.decomposition import tucker

        run = lambda: tucker(x, rank=ranks, n_iter_max=sweeps, tol=0, init="svd")
        return run, self.reconstruct_tucker

    def hosvd(self, x, ranks):
        return self.tucker(x, ranks, 0)

    def st_hosvd(self, x, ranks):
        raise Unsupported

    def hooi(self, x, ranks):
        return self.tucker(x, ranks, SWEEPS)

    def cp_als(self, x, rank, start):
        from tensorly.decomposition import parafac

        run = lambda: parafac(x, rank, n_iter_max=SWEEPS, init=(None, list(start)), tol=0)
        return run, self.reconstruct_cp

    def tucker_amounts(self, x, ranks):
        from tensorly.decomposition import non_negative_tucker_hals

        run = lambda: non_negative_tucker_hals(x, ranks, n_iter_max=SWEEPS, init="random", random_state=0, tol=0)
        return run, self.reconstruct_tucker

    def cp_amounts(self, x, rank, start):
        from tensorly.decomposition import non_negative_parafac_hals

        run = lambda: non_negative_parafac_hals(x, rank, n_iter_max=SWEEPS, init=(None, list(start)), tol=0)
        return run, self.reconstruct_cp

    def cp_holes(self, x, mask, rank, start):
        from tensorly.decomposition import parafac

        run = lambda: parafac(x, rank, n_iter_max=SWEEPS, init=(None, list(start)), tol=0, mask=mask)
        return run, self.reconstruct_cp

    def reconstruct_tucker(self, result):
        core, factors = result
        return tucker_to_array(self.tl.to_numpy(core), [self.tl.to_numpy(f) for f in factors])

    def reconstruct_cp(self, result):
        weights, factors = result
        return cp_to_array(self.tl.to_numpy(weights), [self.tl.to_numpy(f) for f in factors])


class Pyttb:
    """pyttb, in float64 only (its arrays are column-major; they are made so before the timing)."""

    def __init__(self):
        from importlib.metadata import version

        import pyttb

        self.ttb = pyttb
        self.version = f"pyttb {version('pyttb')}"

    def load(self, array):
        return self.ttb.tensor(array) if array.ndim > 2 else array

    def mode_product(self, x, matrix, mode):
        return lambda: x.ttm(matrix, mode), lambda result: result.double()

    def hosvd(self, x, ranks, sequential=False):
        # verbosity 0 also keeps it from computing the error.
        run = lambda: self.ttb.hosvd(x, tol=0.0, verbosity=0, sequential=sequential, ranks=list(ranks))
        return run, self.reconstruct_tucker

    def st_hosvd(self, x, ranks):
        return self.hosvd(x, ranks, sequential=True)

    def hooi(self, x, ranks):
        run = lambda: self.ttb.tucker_als(x, list(ranks), stoptol=0.0, maxiters=SWEEPS, init="nvecs", printitn=0)[0]
        return run, self.reconstruct_tucker

    def cp_als(self, x, rank, start):
        initial = self.ttb.ktensor(list(start))
        run = lambda: self.ttb.cp_als(x, rank, stoptol=0.0, maxiters=SWEEPS, init=initial, printitn=0)[0]
        return run, lambda result: cp_to_array(result.weights, result.factor_matrices)

    def tucker_amounts(self, x, ranks):
        raise Unsupported

    def cp_amounts(self, x, rank, start):
        raise Unsupported

    def cp_holes(self, x, mask, rank, start):
        raise Unsupported

    def reconstruct_tucker(self, result):
        return tucker_to_array(result.core.double(), result.factor_matrices)


def times_matrix(x, matrix, mode):
    """The mode product, in float64."""
    import numpy as np

    x, matrix = np.asarray(x, dtype=np.float64), np.asarray(matrix, dtype=np.float64)
    return np.moveaxis(np.tensordot(matrix, x, axes=(1, mode)), 0, mode)


def tucker_to_array(core, factors):
    for mode, factor in enumerate(factors):
        core = times_matrix(core, factor, mode)
    return core


def cp_to_array(weights, factors):
    import numpy as np

    factors = [np.asarray(f, dtype=np.float64) for f in factors]
    rank = factors[0].shape[1]
    rest = functools.reduce(lambda a, b: (a[:, None] * b).reshape(-1, rank), factors[1:])
    return (factors[0] * weights @ rest.T).reshape([f.shape[0] for f in factors])


def prepare(library, case, load):
    """The call to time, the function that makes an array of its result, and the array to compare that with."""
    kind, _, problem = case.rpartition("-")
    if kind == "mode-product":
        mode, x, matrix = int(problem), load("tk3"), load("modemat")
        call = library.mode_product(library.load(x), library.load(matrix), mode)
        return *call, times_matrix(x, matrix, mode)
    if kind.startswith("cp-"):
        import numpy as np

        name, rank = CP_PROBLEMS[problem]
        x = load(name)
        start = [library.load(load(f"{name}_init{mode}")) for mode in range(x.ndim)]
        if kind == "cp-amounts":
            x = abs(x)
            return *library.cp_amounts(library.load(x), rank, start), x
        if kind == "cp-holes":
            # Every tenth entry is missing; the error is over all of them.
            mask = (sum(np.indices(x.shape)) % 10 != 0).astype(x.dtype)
            return *library.cp_holes(library.load(x * mask), library.load(mask), rank, start), x
        return *library.cp_als(library.load(x), rank, start), x
    name, ranks = TUCKER_PROBLEMS[problem]
    x = load(name)
    if kind == "tucker-amounts":
        x = abs(x)
    return *getattr(library, kind.replace("-", "_"))(library.load(x), ranks), x


def measure(run, reps, max_seconds):
    """The last result of `run` and the seconds of each timed call."""
    run()
    begin, seconds = time.monotonic(), []
    while len(seconds) < reps and not (seconds and time.monotonic() - begin > max_seconds):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--dtype", choices=("f64", "f32"), default="f64")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--max-seconds", type=float, default=60.0)
    args = parser.parse_args()
    record = {"library": args.library, "case": args.case, "dtype": args.dtype}

    limit_threads(args.threads)
    import numpy as np

    warnings.simplefilter("ignore")

    def load(name):
        return np.load(args.data / f"{name}_{args.dtype}.npy")

    try:
        if args.library == "pyttb":
            if args.dtype != "f64":
                raise Unsupported
            library = Pyttb()
        else:
            library = TensorLy({"tensorly-numpy": "numpy", "tensorly-torch": "pytorch"}[args.library], args.threads)
        with contextlib.redirect_stdout(io.StringIO()):  # pyttb prints whatever it is told
            run, to_array, reference = prepare(library, args.case, load)
            result, seconds = measure(run, max(args.reps, 1), args.max_seconds)
            reference = np.asarray(reference, dtype=np.float64)
            error = np.linalg.norm(reference - to_array(result)) / np.linalg.norm(reference)
    except Unsupported:
        print(json.dumps(record | {"unsupported": True}))
        return
    record |= {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "relative_error": float(error),
        "reps": len(seconds),
        "version": f"{library.version}, numpy {np.__version__}",
    }
    print(json.dumps(record))


if __name__ == "__main__":
    sys.exit(main())
