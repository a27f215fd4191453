"""Importing the package is quick because it loads little, and it leaves the process as it was."""

import subprocess
import sys

HEAVY = ["triton", "numba", "llvmlite", "scipy", "matplotlib", "torchdiffeq", "rich", "sklearn", "typer"]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_only_torch_and_numpy() -> None:
    """`import logsnr` imports none of the slow packages that torch has not imported already."""
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import logsnr\n"
        f"print(sorted(m for m in {HEAVY} if m in sys.modules and m not in before))"
    )
    assert run(code) == "[]"


def test_import_changes_nothing() -> None:
    """`import logsnr` touches neither the environment, nor torch's settings, nor CUDA, nor the random
    state."""
    code = (
        "import os, warnings, random, torch, numpy as np\n"
        "def state():\n"
        "    return (dict(os.environ), torch.get_num_threads(), torch.get_default_dtype(),\n"
        "            torch.initial_seed(), torch.get_rng_state().sum().item(),\n"
        "            str(np.random.get_state()), random.getstate(), list(warnings.filters),\n"
        "            torch.is_grad_enabled(), torch.cuda.is_initialized())\n"
        "before = state()\n"
        "import logsnr\n"
        "assert state() == before\n"
        "print('same')"
    )
    assert run(code) == "same"


def test_public_names() -> None:
    """Every name in __all__ exists, and the subpackages load when they are first used."""
    code = (
        "import logsnr\n"
        "assert all(hasattr(logsnr, name) for name in logsnr.__all__)\n"
        "print(logsnr.analysis.__name__, logsnr.kernels.__name__, hasattr(logsnr, 'nothing'))"
    )
    assert run(code) == "logsnr.analysis logsnr.kernels False"
