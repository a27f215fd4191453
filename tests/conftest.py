"""One place for determinism: tests start from the same seeds, hypothesis draws the same examples. Where there is no
GPU, Triton kernels are interpreted."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # of which there is one for every processor: torch's threads must not spin
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    gc.disable()  # until all is imported and collected, which stays: to look through it again and again takes longer

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import settings

mpmath.mp.dps = 60  # for all: it is one setting for the process

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

if "PYTEST_XDIST_WORKER" in os.environ:  # here, but not in the processes that tests start
    torch.set_num_threads(min(2, torch.get_num_threads()))

if not torch.cuda.is_available():  # Triton reads it when it is imported; its kernels then run on CPU tensors
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_finish() -> None:
    """From here on the garbage collector looks through what tests make, and nothing else."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Seeds torch and numpy's legacy generator, and leaves torch's default dtype as it found it."""
    # torch.manual_seed takes a millisecond: for GPUs that are not in use yet it writes down who has called.
    (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(0)
    np.random.seed(0)  # noqa: NPY002 - scikit-learn and friends still draw from it
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture
def without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m pytest` puts the repository first on the path, where transformers takes our kernels/ for a library."""
    root = Path(__file__).parents[1]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry).resolve() != root])
