"""docs/guidance.md: what it says is what comes out, and the rules that it names are all."""

import re

from pages import DOCS, blocks, printed

from logsnr.solvers.denoisers.guidance_rules import KINDS


def test_python_blocks_print_what_the_page_says() -> None:
    shown = list(printed(blocks("guidance.md")))
    assert len(shown) == 4
    for output, said in shown:
        assert output == said


def test_kinds() -> None:
    row = re.search(r"\| `kind` \|.*", (DOCS / "guidance.md").read_text())
    assert row
    assert set(re.findall(r'`"([^"`]+)"`', row[0])) == set(KINDS)
