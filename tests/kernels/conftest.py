"""What tests of compiled functions and of their files share."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

from logsnr.kernels import compiled

SOURCE = """
def loop(frame, row, begin, end):
    total = 0
    for i in range(begin, end):
        total += (frame + row) * i
    return total

def other(frame, row, begin, end):
    return frame - row
"""


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Functions of a file of their own, kept in an empty folder."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "_MADE", {})
    (tmp_path / "made.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made", raising=False)
    module = importlib.import_module("made")
    return lambda name="loop": getattr(module, name)
