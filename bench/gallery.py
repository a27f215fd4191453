"""The pictures of docs/gallery.md, made by the code of that page.

python -m logsnr.bench.gallery
"""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from .command import run_command

PIECE = re.compile(r"```python\n(.*?)```|!\[[^\]]*\]\(([^)]+)\)", re.DOTALL)  # a block, or a picture
COLOURS = 256  # of a picture
STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 12, "axes.titlesize": 12}
STYLE |= {"savefig.dpi": 150, "savefig.bbox": "tight"}


def pictures(page: str) -> Iterator[tuple[str, Figure]]:
    """Run the python blocks of a page in order: the path of each picture, and what the blocks before it call `figure`.

    Raises ValueError for a picture before which no block has made a new `figure`.
    """
    names: dict[str, Any] = {}
    for code, path in PIECE.findall(page):
        if code:
            exec(code, names)
        elif isinstance(figure := names.pop("figure", None), Figure):
            yield path, figure
        else:
            raise ValueError(f"no block before the picture {path} makes a figure for it")


def small(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours, half the size of one of all."""
    whole, file = BytesIO(), BytesIO()
    figure.savefig(whole)
    Image.open(whole).convert("RGB").quantize(COLOURS).save(file, "png", optimize=True)
    return file.getvalue()


def main(page: Annotated[Path, typer.Argument(help="Runs as it stands.")] = Path("docs/gallery.md")) -> None:
    """Run a page, and write its pictures to where it looks for them."""
    with rc_context(STYLE):
        for path, figure in pictures(page.read_text()):
            target = page.parent / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(small(figure))


if __name__ == "__main__":
    run_command(main)
