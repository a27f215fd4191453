"""docs/inverse.md: what it says is what comes out, and its tables are those of the bench."""

import re

import pytest
from pages import DOCS, blocks, printed

from logsnr import control
from logsnr.bench.posteriors import images, operators, report

PAGE = (DOCS / "inverse.md").read_text()


def test_python_blocks_print_what_the_page_says() -> None:
    shown = list(printed(blocks("inverse.md")))
    assert len(shown) == 3
    for output, said in shown:
        assert output == said


def test_all_names_are_there() -> None:
    named = set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE))
    others = {"At", "Guide", "Linear", "LinearProblem"}
    assert named | others <= set(control.__all__)


def test_tables_are_of_the_bench() -> None:
    """A part of them: numbers at 20 steps, and all rows."""
    wanted = rows(PAGE[PAGE.index("**mask**") :])
    found = rows(report([1.0], [20], ["mask"]))
    assert list(found) == list(wanted)
    for method, cells in found.items():
        given = [float(v) for v in cells[0].split(" / ")]
        assert given == pytest.approx([float(v) for v in wanted[method][0].split(" / ")], rel=0.05, abs=0.01)
    assert set(re.findall(r"\*\*(\w+)\*\*\n", PAGE)) == set(operators())
    assert images().event_shape == (1, 8, 8)


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the first table, by method."""
    lines = text.split("\n\n")[1].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {method: rest for method, *rest in cells}
