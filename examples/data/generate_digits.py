"""Writes digits.safetensors: scikit-learn's handwritten digits as packed images.

    pip install scikit-learn safetensors numpy
    python examples/data/generate_digits.py
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

digits = load_digits()
# Values 0 to 16 become 0 to 255.
pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
save_file(
    {"images_u8_nhwc": np.ascontiguousarray(pixels), "labels_u8": digits.target.astype(np.uint8)},
    Path(__file__).parent / "digits.safetensors",
    metadata={"classes": ",".join(str(digit) for digit in range(10))},
)
