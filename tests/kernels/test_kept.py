"""Machine code on disk: files that are gone, and folders of others."""

import os
from pathlib import Path
from typing import Any

import pytest
from loop_files import again, assert_compiled_anew, files, hits

from logsnr.kernels import compiled
from logsnr.kernels.compiled import trusted


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
