"""docs/add-a-solver.md: what it says is what comes out."""

from pages import blocks, printed


def test_python_blocks_print_what_the_page_says() -> None:
    """Every python block runs, in order, and prints the text block after it."""
    found = list(printed(blocks("add-a-solver.md")))
    assert len(found) >= 8
    assert all(output == said for output, said in found)
