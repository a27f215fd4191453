"""Machine code on disk: what is damaged, swapped, foreign or no file, full disks, and folders of others."""

import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loop_files import WANTED, again, assert_compiled_anew, files, hits

from logsnr.kernels import compiled
from logsnr.kernels.kept import DIGEST, trusted


@pytest.mark.parametrize("content", [b"", b"\x80", b"nothing that we have written", b"\0" * 100, pickle.dumps(0), None])
def test_damaged_files(loop: Any, tmp_path: Path, content: bytes | None) -> None:
    """What is cut off (None: in the middle) or no file of ours is not used; the function is compiled, and kept."""
    compiled.compiled(loop())
    (path,) = files(tmp_path, "nbc")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert_compiled_anew(loop)


def test_a_file_over_another_content(loop: Any, tmp_path: Path) -> None:
    """The digest is of the content, too: nothing of what does not fit is unpickled, which could run anything."""
    compiled.compiled(loop())
    (path,) = files(tmp_path, "nbc")
    path.write_bytes(path.read_bytes()[:DIGEST] + pickle.dumps(Harmful(tmp_path / "harm")))
    assert_compiled_anew(loop)
    assert not (tmp_path / "harm").exists()


class Harmful:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_swapped_files(loop: Any, tmp_path: Path) -> None:
    """Two functions of one signature, of which each finds the other's code."""
    compiled.compiled(loop())
    (mine,) = files(tmp_path, "nbc")
    compiled.compiled(loop("other"))
    (others,) = set(files(tmp_path, "nbc")) - {mine}
    aside = mine.rename(tmp_path / "aside")
    others.rename(mine)
    aside.rename(others)
    compiled._MADE.clear()
    assert compiled.compiled(loop("other"))(9, 4, 0, 0) == 5
    assert_compiled_anew(loop)


def test_a_file_of_an_older_source(loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was put back: the digest is of the source's state, too."""
    compiled.compiled(loop())
    (path,) = files(tmp_path, "nbc")
    old = path.read_bytes()
    monkeypatch.setattr(compiled, "stamp", lambda: (("loops.py", 1, 2),))
    again(loop())
    assert path.read_bytes() != old  # in the same place
    path.write_bytes(old)
    assert_compiled_anew(loop)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_no_ordinary_file(loop: Any, tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Nobody waits for a FIFO, or reads a device to its end; the function is compiled."""
    compiled.compiled(loop())
    (path,) = files(tmp_path, "nbc")
    path.unlink()
    make(path)
    thread = threading.Thread(target=again, args=[loop()], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert compiled.compiled(loop())(1, 2, 4, 9) == WANTED
    assert not files(tmp_path, "part")


def test_a_full_disk(loop: Any, tmp_path: Path) -> None:
    """What could not be written whole is not left behind."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # bytes of a file; then it is "too large"
    try:
        function = compiled.compiled(loop())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert function(1, 2, 4, 9) == WANTED
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_files_that_are_gone(loop: Any, tmp_path: Path) -> None:
    """They are written anew."""
    compiled.compiled(loop())
    files(tmp_path, "nbc")[0].unlink()
    assert_compiled_anew(loop)


def alone(loop: Any, why: str) -> None:
    """Nothing is taken from disk nor left there, with one warning for all functions."""
    compiled._MADE.clear()
    with pytest.warns(UserWarning, match=f"compiled code is not kept in .*{why}.*NUMBA_CACHE_DIR") as told:
        functions = [compiled.compiled(loop(name)) for name in ("loop", "other")]
    assert [function(9, 4, 0, 2) for function in functions] == [13, 5]
    assert len(told) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owners")
@pytest.mark.parametrize("above", [False, True])
def test_a_folder_that_others_write_to(loop: Any, tmp_path: Path, above: bool) -> None:
    """Loading from it runs what anybody has put there: it is not used, and neither is one below it."""
    compiled.compiled(loop())
    (path,) = files(tmp_path, "nbc")
    (path.parent.parent if above else path.parent).chmod(0o777)
    kept = path.read_bytes()
    trusted.cache_clear()
    alone(loop, "everybody may write to")
    assert files(tmp_path, "nbc") == [path]
    assert path.read_bytes() == kept
    path.parent.parent.chmod(0o1777)  # as /tmp: nobody renames what is another's
    path.parent.chmod(0o755)
    trusted.cache_clear()
    assert hits(again(loop())) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owners")
def test_folders_above_the_source_are_not_looked_at(loop: Any, tmp_path: Path) -> None:
    """Who may write there may change the source."""
    tmp_path.chmod(0o777)
    compiled.compiled(loop())
    assert hits(again(loop())) == 1


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="gives files away")
def test_a_folder_of_another_user(loop: Any, tmp_path: Path) -> None:
    """Used only if the source is that user's, too."""
    compiled.compiled(loop())
    (path,) = files(tmp_path, "nbc")
    os.chown(path.parent, 54321, -1)
    trusted.cache_clear()
    alone(loop, "it belongs to user 54321")
    os.chown(tmp_path / "made.py", 54321, -1)
    trusted.cache_clear()
    assert hits(again(loop())) == 1
