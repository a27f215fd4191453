"""docs/flow-maps.md: what it says is what comes out."""

from pages import blocks, printed


def test_python_blocks_print_what_the_page_says() -> None:
    """Every python block runs, in order, and prints the text block after it."""
    shown = list(printed(blocks("flow-maps.md")))
    assert len(shown) == 8
    for output, said in shown:
        assert output == said
