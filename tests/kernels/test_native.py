"""Functions compiled from LLVM IR: values, errors, and the cache of machine code."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from llvmlite import ir

from logsnr.kernels import native
from logsnr.kernels.native import I64, compile_function


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the user's cache."""
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were compiled, not loaded."""
    sources: list[str] = []
    compile_ = native._compile
    monkeypatch.setattr(native, "_compile", lambda source: sources.append(source) or compile_(source))
    return sources


def weighted(builder: ir.IRBuilder, values: list[Any]) -> Any:
    return builder.add(builder.mul(values[0], I64(10)), values[1])


def test_values(folder: Path) -> None:
    """Arguments of 64 bits, negative ones too, arrive and return unharmed."""
    function = compile_function("values", 2, weighted)
    assert function(3, 4) == 34
    assert function(-3, 4) == -26
    assert function(0, 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3)])
def test_number_of_arguments(folder: Path, arguments: tuple[int, ...]) -> None:
    """A call with another number of arguments is a TypeError, not a crash."""
    with pytest.raises(TypeError, match="bad argument"):
        compile_function("counted", 2, weighted)(*arguments)


def test_compiled_once(folder: Path, compiled: list[str]) -> None:
    """The first process compiles; whoever asks for the same code again loads it."""
    assert compile_function("cached", 2, weighted)(1, 2) == 12
    assert len(compiled) == 1
    assert [path.name for path in folder.iterdir()] == [path.stem for path in folder.iterdir()]  # no part files
    assert native._machine_code(compiled[0])
    assert len(compiled) == 1


def test_another_processor_compiles_again(folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code is looked up by the processor that it was made for."""
    compile_function("portable", 2, weighted)
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    native._machine_code(compiled[0])
    assert len(compiled) == 2


@pytest.mark.parametrize("keep", [0, 16, -1])
def test_damaged_cache(folder: Path, compiled: list[str], keep: int) -> None:
    """A truncated file is not loaded but compiled anew, and mended."""
    compile_function("damaged", 2, weighted)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    assert native._machine_code(compiled[0]) == whole[32:]
    assert len(compiled) == 2
    assert path.read_bytes() == whole


def test_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can hold the cache, functions are compiled all the same."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path / "file" / "cache")
    assert compile_function("homeless", 2, weighted)(1, 2) == 12


def test_the_interpreter_goes_on(folder: Path) -> None:
    """A function runs without the GIL: it can wait for what another thread of the interpreter writes."""
    from array import array

    def wait(b: ir.IRBuilder, values: list[Any]) -> Any:
        word = b.inttoptr(values[0], I64.as_pointer())
        loop, done = b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        seen = b.load_atomic(word, "monotonic", 8)
        b.cbranch(b.icmp_signed("==", seen, I64(0)), loop, done)
        b.position_at_end(done)
        return seen

    function = compile_function("wait", 1, wait)
    flag = array("q", [0])
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(function(flag.buffer_info()[0])), daemon=True)
    thread.start()
    flag[0] = 7
    thread.join(timeout=60)
    assert found == [7]


def test_loops_may_outlive_the_library() -> None:
    """A process that still holds compiled loops when modules are taken down ends well: freed memory is overwritten
    here, and what Python knows a builtin by must not be in it."""
    script = (
        "import torch, logsnr; den = logsnr.Denoiser(lambda x, t: x, logsnr.VPLinear()); "
        "[logsnr.sample(den, torch.ones(2, 3), solver='ddim', steps=5) for _ in range(2)]"
    )
    environment = os.environ | {"PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": "255"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize(("lock", "free"), [("fork_lock", 1), ("threading.Lock", 0)])
def test_forks_wait_for_locks(lock: str, free: int) -> None:
    """A child finds a lock free that another thread holds when the process forks; an ordinary one it does not."""
    code = f"""if True:
        import os, threading, time, warnings
        from logsnr.kernels.native import fork_lock
        warnings.simplefilter("ignore")
        lock, held = {lock}(), threading.Event()
        def hold():
            with lock:
                held.set()
                time.sleep(0.5)
        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if not child:
            os._exit(lock.acquire(timeout=2))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == [str(free)]
