"""docs/tune.md and docs/universal.md: what they say is what comes out."""

import pytest
from pages import blocks, printed


@pytest.mark.parametrize(("page", "outputs"), [("tune.md", 2), ("universal.md", 1)])
def test_python_blocks_print_what_the_page_says(page: str, outputs: int) -> None:
    """The python blocks run in order, and the text after each is its output."""
    shown = list(printed(blocks(page)))
    assert len(shown) == outputs
    for output, said in shown:
        assert output == said
