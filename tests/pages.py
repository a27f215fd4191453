"""What the tests of the documentation's pages share."""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[tuple[str, str]]:
    """The kind and the text of every block of a page."""
    return re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def printed(found: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Run the python blocks in order: what each prints, and what the page says, the text block after it."""
    names: dict[str, object] = {}
    for (kind, code), (next_kind, said) in zip(found, [*found[1:], ("", "")], strict=True):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(code, names)
            yield output.getvalue(), said if next_kind == "text" else ""
