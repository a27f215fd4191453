"""README.md, and the links of all pages."""

import re
from pathlib import Path

import pytest
from pages import DOCS, blocks, printed

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def test_the_first_snippet_prints_what_the_page_says() -> None:
    shown = list(printed(blocks("../README.md")))
    assert shown
    for output, said in shown:
        assert output == said


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and headings in them."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link
