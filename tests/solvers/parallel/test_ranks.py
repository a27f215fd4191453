"""Batches shared by processes, and the examples of what they can share, run as a user runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from batch_rank import SAMPLES, draw
from torch import distributed

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="needs torch.distributed")
EXAMPLE = Path(__file__).parents[3] / "examples" / "parallel_ranks.py"


def test_ids_are_what_makes_the_noise_that_of_one_process() -> None:
    """A share with the ids that samples have by default is the first; the second has other bits."""
    first, second = draw(range(SAMPLES), "sde-dpmpp-2m").chunk(2)
    assert torch.equal(draw(range(SAMPLES // 2), "sde-dpmpp-2m"), first)
    assert not torch.equal(draw(range(SAMPLES // 2), "sde-dpmpp-2m"), second)


@pytest.mark.slow
def test_the_example() -> None:
    """torchrun with two ranks shares a run of 1000 steps in a few rounds, and a batch."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(EXAMPLE)]
    found = subprocess.run(
        command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    run, far, *batches = found.stdout.splitlines()
    rounds, nfe = re.fullmatch(r"ddim on 2 ranks: (\d+) rounds, (\d+) evaluations", run).groups()  # type: ignore[union-attr]
    assert 1000 <= int(nfe) < 64 * int(rounds) < 3000
    assert 0 < float(far.split()[1]) < 0.1
    for line, solver in zip(batches, ("dpmpp-2m", "sde-dpmpp-2m"), strict=True):
        head, off = line.removesuffix(" from those of one").split(", ")
        assert head == f"{solver}: 32 samples of 2 ranks"
        assert float(off) < 1e-4  # 0 where the network's rounding does not depend on the batch
