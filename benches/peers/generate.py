#!/usr/bin/env python3
"""Write the tensors of the comparison with other libraries as .npy files, in float64 and float32.

usage: generate.py OUT_DIR [--without-pines]

| file (`_f64.npy`, `_f32.npy`) | what |
|---|---|
| tk3 | 200 x 200 x 200, Tucker ranks (20, 20, 20) plus 10 % noise |
| cp3 | 200 x 200 x 200, CP rank 20 plus 10 % noise |
| tk4 | 64 x 64 x 64 x 64, Tucker ranks (8, 8, 8, 8) plus 10 % noise |
| cp4 | 64 x 64 x 64 x 64, CP rank 16 plus 10 % noise |
| modemat | 50 x 200, for the mode products with tk3 |
| cp3_init0..2, cp4_init0..3 | starts of CP-ALS, uniform on [0, 1) |
| ip_init0..2 | starts of rank 10 for Indian Pines, uniform on [0, 1) |
| indian_pines | 145 x 145 x 200 hyperspectral image, from the tensorly package |

About 650 MB in all. The order of the draws fixes the values: add new ones at the end.
"""

import argparse
import functools
from pathlib import Path

import numpy as np

SEED = 20261124


def mode_product(x, matrix, mode):
    return np.moveaxis(np.tensordot(matrix, x, axes=(1, mode)), 0, mode)


def with_noise(rng, x, level=0.1):
    """x plus Gaussian noise whose norm is `level` times that of x."""
    noise = rng.standard_normal(x.shape)
    noise *= level * np.linalg.norm(x) / np.linalg.norm(noise)
    return x + noise


def noisy_tucker(rng, shape, ranks):
    """A Gaussian core times an orthonormal factor in every mode, plus noise."""
    x = rng.standard_normal(ranks)
    for mode, (rows, columns) in enumerate(zip(shape, ranks)):
        factor, _ = np.linalg.qr(rng.standard_normal((rows, columns)))
        x = mode_product(x, factor, mode)
    return with_noise(rng, x)


def noisy_cp(rng, shape, rank):
    """A sum of `rank` outer products of Gaussian vectors, plus noise."""
    factors = [rng.standard_normal((rows, rank)) for rows in shape]
    khatri_rao = functools.reduce(lambda a, b: (a[:, None] * b).reshape(-1, rank), factors)
    return with_noise(rng, khatri_rao.sum(axis=1).reshape(shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--without-pines", action="store_true", help="leave out Indian Pines (needs no tensorly then)")
    args = parser.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)

    def save(name, array):
        for suffix, dtype in (("f64", np.float64), ("f32", np.float32)):
            np.save(args.out_dir / f"{name}_{suffix}.npy", np.ascontiguousarray(array, dtype=dtype))
        print(f"{name}: {' x '.join(map(str, array.shape))}", flush=True)

    rng = np.random.default_rng(SEED)
    save("tk3", noisy_tucker(rng, (200,) * 3, (20,) * 3))
    save("cp3", noisy_cp(rng, (200,) * 3, 20))
    save("tk4", noisy_tucker(rng, (64,) * 4, (8,) * 4))
    save("cp4", noisy_cp(rng, (64,) * 4, 16))
    save("modemat", rng.standard_normal((50, 200)))
    for name, sizes, rank in (("cp3", (200,) * 3, 20), ("cp4", (64,) * 4, 16), ("ip", (145, 145, 200), 10)):
        for mode, size in enumerate(sizes):
            save(f"{name}_init{mode}", rng.random((size, rank)))
    if not args.without_pines:
        from tensorly.datasets import load_indian_pines

        save("indian_pines", np.asarray(load_indian_pines().tensor))


if __name__ == "__main__":
    main()
