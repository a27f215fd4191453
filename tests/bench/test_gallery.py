"""Pictures of a page are what its blocks make; docs/gallery.md names those that there are."""

from pathlib import Path

import pytest
from pages import DOCS, blocks, printed

from logsnr.bench.gallery import PIECE, main

MADE = """
```python
from matplotlib.figure import Figure

figure = Figure(figsize=(1, 1))
```

![A picture](made/one.png)
"""


def test_the_picture_after_a_block_is_written(tmp_path: Path) -> None:
    """And the same page gives the same bytes."""
    page, target = tmp_path / "page.md", tmp_path / "made" / "one.png"
    page.write_text(MADE)
    main(page)
    first = target.read_bytes()
    assert first.startswith(b"\x89PNG")
    main(page)
    assert target.read_bytes() == first


def test_a_picture_that_nothing_makes_is_refused(tmp_path: Path) -> None:
    """That of the block before is used up."""
    page = tmp_path / "page.md"
    page.write_text(MADE + "![Another](made/two.png)")
    with pytest.raises(ValueError, match=r"no block before the picture made/two\.png"):
        main(page)


def test_every_picture_of_the_gallery_has_its_block_and_its_caption() -> None:
    """After each block but the first comes a picture, and then a sentence in italics."""
    text = (DOCS / "gallery.md").read_text()
    first, *pieces = PIECE.finditer(text)
    assert first[1]
    assert len(pieces) == 16
    for block, picture in zip(pieces[::2], pieces[1::2], strict=True):
        assert block[1]
        assert (DOCS / picture[2]).exists()
        assert text[picture.end() :].startswith("\n\n*")
    assert {path.name for path in (DOCS / "figures" / "gallery").iterdir()} == {
        Path(picture[2]).name for picture in pieces[1::2]
    }


@pytest.mark.parametrize("block", range(1, 9))
def test_each_block_runs_after_the_first_alone(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with seeds of its own: pictures are the same whenever they are made."""
    monkeypatch.setattr("logsnr.solvers.runs.noise.drawn_seed", None)
    found = blocks("gallery.md")
    assert list(printed([found[0], found[block]])) == [("", ""), ("", "")]
