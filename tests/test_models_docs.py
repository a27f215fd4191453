"""docs/models.md: what it says is what comes out."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and the text after each is its output."""
    names: dict[str, object] = {}
    shown = [(code, BLOCKS[k + 1][1]) for k, (kind, code) in enumerate(BLOCKS) if kind == "python"]
    assert len(shown) == 5
    for code, said in shown:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, names)
        assert output.getvalue() == said
