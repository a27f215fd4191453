"""docs/parallel.md: what it says is what comes out."""

import pytest
from pages import blocks, printed

BLOCKS = blocks("parallel.md")


def close(word: str, said: str) -> bool:
    """Equal words; other processors may take a round more."""
    try:
        return float(word) == pytest.approx(float(said), rel=0.12)
    except ValueError:
        return word == said


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and the text after each is its output."""
    shown = list(printed(BLOCKS))
    assert len(shown) == 5
    for output, said in shown:
        found, wanted = output.split(), said.split()
        assert len(found) == len(wanted)
        assert all(map(close, found, wanted)), output


def figures() -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the two tables: of tolerances and windows, and of methods."""
    rows = [line.split() for kind, text in BLOCKS for line in text.splitlines() if kind == "text" and "%" in line]
    return rows[:18], rows[18:]


def test_the_figures_keep_what_is_promised() -> None:
    """In the table of figures, at the default tolerance, 1000 steps are at least 10 times as fast as the sequential
    run, and 100 steps 4 times, and all rounds take less than a twentieth of their time outside the model."""
    for _, steps, window, tol, *_, flat, outside in figures()[0]:
        if tol == "0.001" and steps != "25":
            assert float(flat) >= {"100": 4, "1000": 10}[steps], (steps, window)
            assert float(outside[:-1]) < 5


def test_the_methods_keep_what_is_promised() -> None:
    """Within so many rounds the median distance from the sequential answer is below the median error of that."""
    promised = {("none", "100"): 11, ("none", "1000"): 14, ("secant", "100"): 7, ("secant", "1000"): 9}
    kept = set()
    for method, steps, _, _, rounds, _, _, distance, _, error, *_ in figures()[1]:
        if int(rounds) <= promised[method, steps] and float(distance) < float(error):
            kept.add((method, steps))
    assert kept == promised.keys()
