"""docs/tune.md: what it says is what comes out."""

from pages import blocks, printed


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and the text after each is its output."""
    shown = list(printed(blocks("tune.md")))
    assert len(shown) == 3
    for output, said in shown:
        assert output == said
