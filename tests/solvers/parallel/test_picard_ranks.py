"""Parallel runs shared by the ranks of torch.distributed, each a process."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_rank import SAMPLES, SOLVERS, draw
from torch import distributed

import logsnr

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="needs torch.distributed")
SCRIPT = Path(__file__).with_name("picard_rank.py")


def run(ranks: int, case: str, folder: Path) -> list[tuple[int, str]]:
    """Exit status and errors of every rank."""
    command = [sys.executable, str(SCRIPT)]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(ranks), str(folder / "store"), case], stderr=subprocess.PIPE, text=True
        )
        for rank in range(ranks)
    ]
    try:
        return [(process.wait(60), process.stderr.read() if process.stderr else "") for process in started[:-1]]
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def one_died(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], tuple[int, str]]:
    """What the first of two ranks leaves before the other one dies, and how it ends."""
    folder = tmp_path_factory.mktemp("ranks")
    (ended,) = run(2, "dies", folder)
    return torch.load(folder / "store.0.pt"), ended


@pytest.fixture
def right(one_died: tuple[tuple[Any, ...], tuple[int, str]]) -> tuple[Any, ...]:
    return one_died[0]


def test_a_shared_batch_has_the_bits_of_one_process(right: tuple[Any, ...]) -> None:
    """What two ranks draw, each its own ids, is what one process draws, to the last bit."""
    for solver, found in zip(SOLVERS, right[-1], strict=True):
        assert torch.equal(found, draw(range(SAMPLES), solver)), solver


def test_ranks_share_the_nodes(right: tuple[Any, ...]) -> None:
    """Two ranks end with the bits of a run in one process, in the same rounds, each with half of the nodes."""
    x = torch.linspace(-2, 3, 30).reshape(3, 10)
    den = logsnr.Denoiser(lambda x, t: x / (1 + x * x) - 0.3 * t.reshape(-1, 1), logsnr.VPLinear(), "eps")
    given = {"solver": "sde-dpmpp-2m", "steps": 20, "seed": 5}
    alone = logsnr.solve(den, x, parallel=logsnr.Picard(window=7, tol=1e-4), **given)  # type: ignore[arg-type]
    found, rounds, nfe, sizes, _ = right
    assert torch.equal(found, alone.x)
    assert (rounds, nfe) == (alone.rounds, alone.nfe)
    assert len(sizes) == rounds
    assert sizes[0] in (10, 11)  # of the 21 nodes of three windows


def test_a_rank_that_dies(one_died: tuple[tuple[Any, ...], tuple[int, str]]) -> None:
    """It ends the others in an error."""
    status, errors = one_died[1]
    assert status == 1
    assert "Error" in errors


@pytest.mark.slow
@pytest.mark.parametrize(("case", "message"), [("hangs", "Error"), ("other", "all ranks must run from the same x")])
def test_ranks_that_fail(case: str, message: str, tmp_path: Path) -> None:
    """A rank that starts elsewhere or hangs ends the others in an error, within the group's timeout."""
    began = time.monotonic()
    ((status, errors),) = run(2, case, tmp_path)
    assert status == 1
    assert message in errors
    assert time.monotonic() - began < 50  # the hanging rank sleeps for 60
