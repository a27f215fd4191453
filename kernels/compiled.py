"""Functions compiled by numba when they are first asked for, and kept on disk for the next process."""

import os
import stat
import threading
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from .pool import Loop

SIGNATURE = "int64(int64, int64, int64, int64)"
_LOCK = threading.Lock()
_MADE: dict[Callable[..., Any], Loop] = {}  # as many as there are functions that ask for it: four

if hasattr(os, "register_at_fork"):  # a child must find these locks free, whoever compiles while it is forked
    for _lock in (global_compiler_lock, _LOCK):  # the last is taken first, as `compiled` does
        os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def compiled(function: Callable[..., Any]) -> Loop:
    """``function(frame, row, begin, end)`` of int64 as machine code that runs without the GIL.

    A thread that asks while another compiles waits. The code is kept where numba would keep it: beside the source, or
    in the user's cache where that cannot be written, or in NUMBA_CACHE_DIR. Where nothing can be kept, or others may
    write there, or what was kept is damaged, the function is compiled.
    """
    found = _MADE.get(function)
    if found is None:
        with _LOCK:
            if function not in _MADE:
                _MADE[function] = _compile(function)
            found = _MADE[function]
    return found


def _compile(function: Callable[..., Any]) -> Loop:
    try:
        loop = numba.njit(nogil=True, cache=True)(function)
        folder = Path(loop._cache.cache_path)
        if not trusted(folder, Path(function.__code__.co_filename)):
            raise PermissionError(folder)
        loop._cache._cache_file._source_stamp = stamp()  # of all files: numba looks at one
        loop.compile(SIGNATURE)
    except Exception:
        loop = numba.njit(SIGNATURE, nogil=True)(function)
    loop.disable_compile()  # for arguments of other types
    return loop


@cache
def stamp() -> tuple[tuple[str, int, int], ...]:
    """Which files the loops are made of, in which state."""
    folder = Path(__file__).parent
    return tuple((path.name, (at := path.stat()).st_mtime_ns, at.st_size) for path in sorted(folder.glob("*.py")))


def target() -> tuple[str, str, str]:
    """What numba compiles for: the kind of machine, the processor, and its features, as LLVM lists them."""
    return cpu_target.target_context.codegen().magic_tuple()


def unfit() -> str | None:
    """Why numba cannot compile the loops for this processor, or None if it can."""
    if numba.config.DISABLE_JIT:
        return "NUMBA_DISABLE_JIT is set"
    triple, _, features = target()
    if triple.startswith(("x86_64", "i686")) and "+f16c" not in features:
        return "numba compiles for a processor without F16C, which has no instructions that convert fp16"
    return None


@cache
def trusted(folder: Path, source: Path) -> bool:
    """Whether code can be loaded from ``folder``, as loading runs it; warns where not.

    It must be the user's, root's, or of whoever has written the source, and not everybody may write to it or rename it;
    above the source they could change that just as well.
    """
    if not hasattr(os, "getuid"):  # Windows, where the folders are the user's
        return True
    folder, source = folder.resolve(), source.resolve()
    owner, above = folder.stat().st_uid, [path for path in folder.parents if path not in source.parents]
    open_to_all = [path for path in (folder, *above) if _open_to_all(path, sticky=path != folder)]
    if not open_to_all and owner in (os.getuid(), 0, source.stat().st_uid):
        return True
    why = f"everybody may write to {open_to_all[0]}" if open_to_all else f"it belongs to user {owner}"
    warnings.warn(
        f"compiled code is not kept in {folder}, as {why}; every process compiles its own (seconds). Take that right "
        "away, or set NUMBA_CACHE_DIR to a folder of your own",
        stacklevel=2,
    )
    return False


def _open_to_all(path: Path, *, sticky: bool) -> bool:
    """Whether everybody may write there; where it is ``sticky``, as /tmp is, not to what is another's."""
    mode = path.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not (sticky and mode & stat.S_ISVTX)
