"""docs/models.md: what it says is what comes out."""

import re
from itertools import pairwise

import torch
from pages import DOCS, blocks, printed

import logsnr

PAGE = (DOCS / "models.md").read_text()


def test_python_blocks_print_what_the_page_says() -> None:
    """Every python block runs, in order, and prints the text block after it."""
    shown = list(printed(blocks("models.md")))
    assert len(shown) >= 14
    for output, said in shown:
        assert output == said


def pieces_are_the_whole(name: str) -> bool:
    sch = logsnr.VPLinear()
    den = logsnr.analysis.two_gaussians().denoiser(sch)
    x = logsnr.start(sch, (16,), seed=0, dtype=torch.float64)
    times = logsnr.grid(sch, 6)
    piece = x
    for step in pairwise(times):
        piece = logsnr.sample(den, piece, solver=name, grid=step, seed=3)
    whole = logsnr.sample(den, x, solver=name, grid=times, seed=3)
    return torch.allclose(piece, whole, rtol=0, atol=1e-13)  # numpy's last digits hang on an array's length


def test_pieces_are_the_whole_but_for_those_named() -> None:
    """A run in pieces is the whole run, but for last digits, for every solver that the page does not except."""
    told = re.search(r"those that look at the whole grid:\s`([^`]+)`", PAGE)
    assert told
    planned = [name for name in logsnr.solver_names() if logsnr.solver(name).planner]
    assert {name for name in planned if not pieces_are_the_whole(name)} == set(told[1].split())
