"""The bench spread over ranks, each a process, as torchrun starts them."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import distributed
from typer.testing import CliRunner

import logsnr
from logsnr.bench import references
from logsnr.bench.problems import BenchProblem
from logsnr.bench.report import explorer
from logsnr.cli import app

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="needs torch.distributed")
SCRIPT = Path(__file__).with_name("bench_rank.py")
ASKED = (
    *("--problem", "digits", "--solvers", "ddim", "--solvers", "sde-dpmpp-2m"),
    *("--nfe", "4", "--nfe", "5", "--nfe", "6", "--grid", "time", "--samples", "8"),
)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def near_ends(problem: BenchProblem, x: torch.Tensor) -> dict[str, np.ndarray]:
    """In place of exact ends, which take longer than all else: ranks get them from the cache."""
    return {"end": logsnr.sample(problem.precise, x, solver="dpm-4m", steps=60).numpy(), "error": np.array(1e-6)}


def alone(out: Path) -> str:
    """What one process prints."""
    settings = patch.multiple(references, REPLICAS=4, _exact_ends=near_ends)
    with settings, patch.object(explorer, "available", lambda: False):  # as in SCRIPT
        result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["bench", *ASKED, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return result.output


def launched(case: str, out: Path, one: Path) -> subprocess.CompletedProcess[str]:
    """Two ranks, with the references that one process has made."""
    shutil.copytree(one / "cache", out / "cache")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    env = {**os.environ, "COLUMNS": "80"}
    return subprocess.run([*command, case, str(out), *ASKED], env=env, capture_output=True, text=True, timeout=150)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("one")
    return out, alone(out)


def test_ranks_share_the_bench(one: tuple[Path, str], tmp_path: Path) -> None:
    """Two ranks measure half each; the CSV is that of one process, and so are what is printed, once, and the sheets of
    digits."""
    out = tmp_path / "two"
    ranks = launched("right", out, one[0])
    assert ranks.returncode == 0, ranks.stderr
    assert rows(out) == rows(one[0])
    assert [int((out / rank).read_text()) for rank in "01"] == [5, 4]  # 3 path by path, 6 in law
    assert ranks.stdout.replace(str(out), "") == one[1].replace(str(one[0]), "")
    sheets = [re.findall(r'data:image/png[^"]+', (folder / "index.html").read_text()) for folder in (out, one[0])]
    assert sheets[0] == sheets[1]
    assert len(sheets[0]) == 15  # of each budget the answer and every solver


@pytest.mark.slow
def test_a_rank_that_fails(one: tuple[Path, str], tmp_path: Path) -> None:
    """An error on one rank ends all with its words; what was measured is kept, and the next run goes on from it."""
    out = tmp_path / "two"
    ranks = launched("fails", out, one[0])
    assert ranks.returncode != 0
    assert "rank 1 failed: ArithmeticError('made to fail')" in ranks.stderr
    assert rows(out) == rows(one[0])[:4]  # of the path's three, and the first rank's of those in law
    before = (out / "results.csv").read_text()
    alone(out)
    assert (out / "results.csv").read_text().startswith(before)
    assert rows(out) == rows(one[0])


def test_an_environment_that_says_too_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One of two processes that is not told which is refused before any work."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    result = CliRunner().invoke(app, ["bench", *ASKED, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, ValueError)
    assert "RANK" in str(result.exception)
    assert not (tmp_path / "out").exists()
