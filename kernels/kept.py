"""Machine code on disk: one file for each function, which says what it is the code of.

numba's own files do not: two that are swapped are run as each other, and a FIFO in place of one is waited for.
"""

import os
import stat
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from pickle import loads
from typing import Any

import numba
from numba.core.serialize import dumps

DIGEST = 32  # bytes at the beginning of a file


class Kept:
    """What numba loads code from and saves it to: an IndexDataCacheFile that trusts no file.

    stamp: the state of all that the function is made of.
    """

    def __init__(self, folder: Path, function: Callable[..., Any], stamp: object) -> None:
        self.folder, self.stamp = folder, stamp
        self.name = f"{function.__module__}.{function.__qualname__}"

    def load(self, key: object) -> Any:
        """What was saved, or None. Nothing is unpickled but what `save` has written for this very key."""
        with suppress(OSError):
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a FIFO opens at once
            with open(os.open(self._path(key), flags), "rb") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    digest, data = file.read(DIGEST), file.read()
                    return loads(data) if digest == self._digest(key, data) else None
        return None

    def save(self, key: object, content: Any) -> None:
        """Keep it for the next process, if there is room."""
        path, data = self._path(key), dumps(content)
        part = path.with_suffix(f".{os.getpid()}.part")
        with suppress(OSError):
            try:
                part.write_bytes(self._digest(key, data) + data)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

    def _path(self, key: object) -> Path:
        """One for each kind of machine; a changed source overwrites it."""
        return self.folder / f"{self.name}-{sha256(self._words(key)).hexdigest()[:16]}.nbc"

    def _digest(self, key: object, data: bytes) -> bytes:
        return sha256(self._words(key, self.stamp) + data).digest()

    def _words(self, *more: object) -> bytes:
        return repr((self.name, numba.__version__, sys.version, *more)).encode()


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
