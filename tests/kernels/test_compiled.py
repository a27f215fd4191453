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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_processes_share_what_is_kept(loop: Any, tmp_path: Path) -> None:
    """A child compiles whatever its parent does, also where another thread of it is compiling while it forks. Children
    that start at the same time compile or find it; those after them compile nothing."""
    (tmp_path / "others.py").write_text((tmp_path / "made.py").read_text())
    code = (
        "import os, signal, sys, threading\n"
        "sys.path.append(sys.argv[1])\n"
        "import made, others\n"
        "from logsnr.kernels import compiled\n"
        "def child(work):\n"
        "    process = os.fork()\n"
        "    if not process:\n"
        "        signal.alarm(100)\n"
        "        try: os._exit(work())\n"
        "        finally: os._exit(99)\n"
        "    return process\n"
        "def end(process): return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])\n"
        "def ask():\n"
        "    loop = compiled.compiled(others.loop)\n"
        f"    return 2 * (loop(1, 2, 4, 9) != {WANTED}) + sum(loop.stats.cache_hits.values())\n"
        "together = [child(ask) for _ in range(2)]\n"
        "assert all(end(process) in (0, 1) for process in together)\n"
        "assert end(child(ask)) == 1\n"
        "thread = threading.Thread(target=compiled.compiled, args=[made.loop])\n"
        "thread.start()\n"
        "one = child(lambda: compiled.compiled(made.other)(7, 7, 0, 0) or compiled.compiled(made.loop)(1, -1, 0, 9))\n"
        "thread.join()\n"
        "assert end(one) == 0\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, timeout=200)
