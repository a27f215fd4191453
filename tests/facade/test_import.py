"""Importing the package is quick because it loads little, and it leaves the process as it was."""

import json
import subprocess
import sys
from functools import cache
from typing import Any

HEAVY = ["triton", "numba", "llvmlite", "scipy", "matplotlib", "torchdiffeq", "rich", "tqdm", "sklearn", "typer"]
CODE = f"""
import os, warnings, random, json, sys, torch, numpy as np

def state():
    return (dict(os.environ), torch.get_num_threads(), torch.get_default_dtype(),
            torch.initial_seed(), torch.get_rng_state().sum().item(),
            str(np.random.get_state()), random.getstate(), list(warnings.filters),
            torch.is_grad_enabled(), torch.cuda.is_initialized())

before, modules = state(), set(sys.modules)
import logsnr
same = state() == before
heavy = sorted(m for m in {HEAVY} if m in sys.modules and m not in modules)
missing = [name for name in logsnr.__all__ if not hasattr(logsnr, name)]
logsnr.integrations
optional = [name for name in ("diffusers", "transformers") if name in sys.modules]
names = [logsnr.analysis.__name__, logsnr.kernels.__name__, logsnr.solvers.__name__, logsnr.solvers.Adams.__name__]
logsnr.analysis.work_precision
plots = "matplotlib" in sys.modules
found = dict(same=same, heavy=heavy, missing=missing, optional=optional, names=names, plots=plots)
print(json.dumps(found | dict(nothing=hasattr(logsnr, "nothing"))))
"""


@cache
def imported() -> dict[str, Any]:
    """What a new process says of the import."""
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def test_import_loads_only_torch_and_numpy() -> None:
    """`import logsnr` imports none of the slow packages that torch has not imported already."""
    assert imported()["heavy"] == []


def test_optional_libraries_stay_optional() -> None:
    """`logsnr.integrations` loads none of those that it serves."""
    assert imported()["optional"] == []


def test_matplotlib_waits_for_a_plot() -> None:
    """A measurement alone does not import it."""
    assert not imported()["plots"]


def test_import_changes_nothing() -> None:
    """`import logsnr` touches neither the environment, nor torch's settings, nor CUDA, nor the random state."""
    assert imported()["same"]


def test_public_names() -> None:
    """Every name in __all__ exists, and the subpackages load when they are first used."""
    assert imported()["missing"] == []
    assert imported()["names"] == ["logsnr.analysis", "logsnr.kernels", "logsnr.solvers", "Adams"]
    assert not imported()["nothing"]
