"""Compiled functions: what the next process finds on disk, threads, and forks."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from loop_files import WANTED, again, files, hits

from logsnr.kernels import combine, compiled
from logsnr.kernels.combine_cpu import _copying


def test_arguments(loop: Any) -> None:
    """Integers arrive unharmed; others, and other numbers of them, are TypeErrors, and nothing runs."""
    function = compiled.compiled(loop())
    assert function(1, 2, 4, 9) == WANTED
    assert compiled.compiled(loop("other"))(-(2**62), 2**62 - 1, 0, 0) == -(2**63) + 1
    for wrong in [(), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, "4"), (1, 2, None, 4)]:
        with pytest.raises(TypeError):
            function(*wrong)


def test_kept_on_disk(loop: Any, tmp_path: Path) -> None:
    """The first compiles, the next finds it, and asks once only."""
    assert hits(compiled.compiled(loop())) == 0
    assert hits(function := again(loop())) == 1
    assert compiled.compiled(loop()) is function
    assert len(files(tmp_path, "nbc")) == 1


def test_a_change_of_any_file_compiles_anew(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops are made of several files, of which numba looks at one."""
    compiled.compiled(loop())
    monkeypatch.setattr(compiled, "stamp", lambda: (("loops.py", 1, 2),))
    assert hits(again(loop())) == 0
    assert hits(again(loop())) == 1


def test_no_folder(loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can be made, or written to, functions are compiled all the same."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert compiled.compiled(loop())(1, 2, 4, 9) == WANTED


def test_threads_compile_once(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of threads that ask at the same time one compiles, and the others wait for it."""
    made, compile_ = list[Any](), compiled._compile
    monkeypatch.setattr(compiled, "_compile", lambda function: made.append(function) or compile_(function))
    barrier = threading.Barrier(8)

    def ask(_: int) -> Any:
        barrier.wait()
        return compiled.compiled(loop())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert len(made) == 1


def test_first_use_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops themselves, taken from disk by whoever comes first."""
    monkeypatch.setattr(compiled, "_MADE", {})
    _copying.cache_clear()
    barrier, x = threading.Barrier(8), torch.arange(1000.0)

    def use(k: int) -> bool:
        barrier.wait()
        (found,), _ = combine([x, x], np.array([[1.0, float(k)]]), backend="cpu")
        return torch.equal(found, (1 + k) * x)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(8)))
    assert len(compiled._MADE) == 1


def run(code: str, *names: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code, *names], env=os.environ | environment, text=True, stdout=-1)


CHILD = """
import os, sys, threading
sys.path.append(sys.argv[1])
import made
from logsnr.kernels import compiled
"""


def test_processes_share_what_is_kept(loop: Any, tmp_path: Path) -> None:
    """Some that start at the same time compile or find it; those after them compile nothing."""
    code = CHILD + "f = compiled.compiled(made.loop); print(f(1, 2, 4, 9), sum(f.stats.cache_hits.values()))"
    folder = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    together = [run(code, str(tmp_path), **folder) for _ in range(3)]
    found = [process.communicate(timeout=100)[0].split() for process in together]
    assert [values[0] for values in found] == [str(WANTED)] * 3
    later = run(code, str(tmp_path), **folder).communicate(timeout=100)[0]
    assert later.split() == [str(WANTED), "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_compiles_whatever_its_parent_does(loop: Any, tmp_path: Path) -> None:
    """Also where another thread of the parent is compiling while it forks."""
    code = CHILD + (
        "thread = threading.Thread(target=compiled.compiled, args=[made.loop])\n"
        "thread.start()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(compiled.compiled(made.other)(7, 7, 0, 0) or compiled.compiled(made.loop)(1, -1, 0, 9))\n"
        "thread.join()\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    process = run(code, str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert process.communicate(timeout=100)[0].split() == ["0"]
