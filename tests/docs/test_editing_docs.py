"""docs/editing.md: what it says is what comes out."""

import pytest
from pages import blocks, printed


def close(word: str, said: str) -> bool:
    """Equal words; other processors round otherwise, and an exact round trip is made of roundings."""
    try:
        return float(word) < 1e-5 if "e-07" in said else float(word) == pytest.approx(float(said), rel=0.15, abs=1e-3)
    except ValueError:
        return word == said


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and the text after each is its output."""
    shown = list(printed(blocks("editing.md")))
    assert len(shown) == 9
    for output, said in shown:
        found, wanted = output.split(), said.split()
        assert len(found) == len(wanted)
        assert all(map(close, found, wanted)), output
