"""Pages whose blocks print what they say, and no more is to be tested of them."""

import pytest
from pages import DOCS, blocks, printed

PAGES = ["coming-from", "index", "interchange", "precision", "recipes", "reproducibility", "tutorial"]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_print_what_the_page_says(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every python block runs, in order, and prints the text block after it; each page has at least one."""
    monkeypatch.chdir(DOCS.parent)
    shown = list(printed(blocks(f"{page}.md")))
    assert shown
    for output, said in shown:
        assert output == said
