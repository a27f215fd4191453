"""Parallel runs shared by the ranks of torch.distributed, each a process."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
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


def test_ranks_share_the_nodes(tmp_path: Path) -> None:
    """Two ranks end with the bits of a run in one process, in the same rounds, each with half of the nodes."""
    x = torch.linspace(-2, 3, 30).reshape(3, 10)
    den = logsnr.Denoiser(lambda x, t: x / (1 + x * x) - 0.3 * t.reshape(-1, 1), logsnr.VPLinear(), "eps")
    given = {"solver": "sde-dpmpp-2m", "steps": 20, "seed": 5}
    alone = logsnr.solve(den, x, parallel=logsnr.Picard(window=7, tol=1e-4), **given)  # type: ignore[arg-type]
    assert all(status == 0 for status, _ in run(2, "right", tmp_path))
    found, rounds, nfe, sizes = torch.load(tmp_path / "store.0.pt")
    assert torch.equal(found, alone.x)
    assert (rounds, nfe) == (alone.rounds, alone.nfe)
    assert len(sizes) == rounds
    assert sizes[0] in (10, 11)  # of the 21 nodes of three windows


@pytest.mark.parametrize(("case", "message"), [
    ("dies", "Error"), pytest.param("hangs", "Error", marks=pytest.mark.slow),
    pytest.param("other", "all ranks must run from the same x", marks=pytest.mark.slow),
])  # fmt: skip
def test_ranks_that_fail(case: str, message: str, tmp_path: Path) -> None:
    """A rank that starts elsewhere, dies or hangs ends the others in an error, within the group's timeout."""
    began = time.monotonic()
    ((status, errors),) = run(2, case, tmp_path)
    assert status == 1
    assert message in errors
    assert time.monotonic() - began < 50  # the hanging rank sleeps for 60
