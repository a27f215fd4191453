"""docs/doctor.md: what it says is what comes out."""

import re

from pages import DOCS, blocks, printed

from logsnr.integrations.doctor.doctor import KINDS


def test_python_blocks_print_what_the_page_says() -> None:
    for output, said in printed(blocks("doctor.md")):
        assert output == said


def test_the_parts_are_those() -> None:
    table = (DOCS / "doctor.md").read_text().split("| part |")[1].split("\n\n")[0]
    assert tuple(re.findall(r"^\| ([a-z ]+) \|", table, re.MULTILINE)) == KINDS
