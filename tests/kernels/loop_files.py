"""What is kept on disk of the functions of the fixture `loop`."""

from pathlib import Path
from typing import Any

from logsnr.kernels import compiled

WANTED = 3 * sum(range(4, 9))


def files(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / "cache").rglob(f"*.{kind}"))


def again(function: Any) -> Any:
    """Compiled as another process would do it."""
    compiled._MADE.clear()
    return compiled.compiled(function)


def assert_compiled_anew(loop: Any) -> None:
    """What is on disk is not used, and is replaced by what is."""
    function = again(loop())
    assert function(1, 2, 4, 9) == WANTED
    assert hits(function) == 0
    assert hits(again(loop())) == 1


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())
