"""docs/grids.md: what it says is what comes out."""

import re

from pages import DOCS, blocks, printed

import logsnr
from logsnr.solvers.grids.grids import KINDS

PAGE = (DOCS / "grids.md").read_text()


def test_python_blocks_print_what_the_page_says() -> None:
    """Every python block runs, in order, and prints the text block after it."""
    shown = list(printed(blocks("grids.md")))
    assert len(shown) >= 5
    for output, said in shown:
        assert output == said


def test_every_name_is_there_with_its_options() -> None:
    """In the table of names, with the defaults of every option; and in that of names elsewhere."""
    ours, theirs = (PAGE.split(f"## {title}\n")[1].split("\n## ")[0] for title in ("Names", "Names elsewhere"))
    for name, shape in KINDS.items():
        row = next(line for line in ours.splitlines() if re.search(rf"^\|[^|]*`{name}`", line))
        for option, default in shape.options.items():
            value = f"{default:g}" if isinstance(default, float) else str(default)
            assert re.search(rf"`[^`]*\b{option}={re.escape(value)}\b", row), option
        if name not in ("logit-normal", "linspace", "logistic"):  # nobody else's names
            assert re.search(rf"^\|[^|]*\b{name}\b", theirs, re.MULTILINE), name
    assert set(logsnr.grid_names()) == set(KINDS)
