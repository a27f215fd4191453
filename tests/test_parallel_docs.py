"""docs/parallel.md: what it says is what comes out."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "parallel.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)


def close(word: str, said: str) -> bool:
    """Equal words; other processors may take a round more."""
    try:
        return float(word) == pytest.approx(float(said), rel=0.12)
    except ValueError:
        return word == said


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and the text after each is its output."""
    names: dict[str, object] = {}
    shown = [(code, BLOCKS[k + 1][1]) for k, (kind, code) in enumerate(BLOCKS) if kind == "python"]
    assert len(shown) == 2
    for code, said in shown:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, names)
        found, wanted = output.getvalue().split(), said.split()
        assert len(found) == len(wanted)
        assert all(map(close, found, wanted)), output.getvalue()


def test_the_figures_keep_what_is_promised() -> None:
    """In the table of figures, at the default tolerance, 1000 steps are at least 10 times as fast as the sequential
    run, and 100 steps 4 times."""
    rows = [line.split() for kind, text in BLOCKS for line in text.splitlines() if kind == "text" and "%" in line]
    assert len(rows) == 18
    for steps, window, tol, *_, flat, _outside in rows:
        if tol == "0.001" and steps != "25":
            assert float(flat) >= {"100": 4, "1000": 10}[steps], (steps, window)
