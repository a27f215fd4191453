"""docs/comfyui.md: what it says is what comes out."""

import re

from pages import DOCS, blocks, printed

from logsnr.integrations import comfyui


def test_python_blocks_print_what_the_page_says() -> None:
    for output, said in printed(blocks("comfyui.md")):
        assert output == said


def test_the_nodes_are_those() -> None:
    text = (DOCS / "comfyui.md").read_text()
    assert re.findall(r"^\| (logsnr \w+) \|", text, re.MULTILINE) == [*comfyui.NODE_DISPLAY_NAME_MAPPINGS.values()]
