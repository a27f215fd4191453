"""The handwritten digits that ship with the library: 1,797 real images of 8 x 8 pixels.

Data: E. Alpaydin and C. Kaynak (1998), *Optical Recognition of Handwritten Digits*, UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, licensed CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).
These are the 1,797 images of its test file (optdigits.tes, 13 writers), the ones scikit-learn ships too;
the grey values are unchanged: each counts the ink in a 4 x 4 block of the 32 x 32 scan, 0 to 16.
"""

from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
import torch

TEST_STRIDE = 6  # every sixth image is held out: 299 to test with, 1,498 to train on


@cache
def _stored() -> tuple[np.ndarray, np.ndarray]:
    """The file as it is: images uint8 (1797, 8, 8) with values 0..16, labels uint8 (1797,)."""
    stored = resources.files(__package__).joinpath("data", "digits.npz")
    with stored.open("rb") as file, np.load(file) as arrays:
        return arrays["images"], arrays["labels"]


def load_digits(*, split: Literal["all", "train", "test"] = "all") -> tuple[torch.Tensor, torch.Tensor]:
    """The digits as (images, labels): float64 (N, 1, 8, 8) in [-1, 1], paper -1 and ink +1, and int64 (N,).

    N is 1797, in the order of the original file. `split="test"` gives every sixth image (N = 299, indices 5,
    11, ...), "train" the other 1498; both hold the same writers. The tensors are the caller's own to change.

    Data: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, doi:10.24432/C50P49, CC BY 4.0; rescaled here from 0..16.
    Raises ValueError for an unknown split.
    """
    if split not in ("all", "train", "test"):
        raise ValueError(f"split is {split!r}; it must be 'all', 'train' or 'test'")
    images, labels = _stored()
    x = torch.from_numpy(images.astype(np.float64) / 8.0 - 1.0).unsqueeze(1)
    y = torch.from_numpy(labels.astype(np.int64))
    if split == "all":
        return x, y
    test = torch.arange(len(y)) % TEST_STRIDE == TEST_STRIDE - 1
    chosen = test if split == "test" else ~test
    return x[chosen], y[chosen]
