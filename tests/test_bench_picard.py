"""The bench of parallel runs: its flat clock, and the table."""

import math

import pytest
import torch

import logsnr
from logsnr.bench import picard


def test_the_flat_clock() -> None:
    """A model is charged its latency once for every 64 nodes that it is given, however long it takes here."""
    sizes: list[int] = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x / (1 + x * x)

    den, x = logsnr.Denoiser(model, logsnr.VPLinear(), "v"), torch.linspace(-1, 1, 20).reshape(4, 5)
    run = picard.timed(den, x, 3.0, steps=30, parallel=logsnr.Picard())
    assert sizes[0] == 120
    assert run.flat - run.outside == pytest.approx(3.0 * sum(math.ceil(n / 64) for n in sizes), rel=1e-9)
    assert 0 < run.outside < run.flat
    assert run.solution.rounds == len(sizes)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A row for every number of steps, window and tolerance; at tolerance 0 the distance is that of the
    model's own answers in different batches, and the estimate 0."""
    threads = torch.get_num_threads()
    picard.main("digits", "dpmpp-2m", [6, 9], [1e-2, 0.0], [4, 0], True, 2, 0.02)
    torch.set_num_threads(threads)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert [row[:3] for row in rows] == [
        [str(steps), width, tol] for steps in (6, 9) for width in ("4", str(steps)) for tol in ("0.01", "0")
    ]
    for row in rows:
        assert int(row[3]) <= int(row[4]) <= int(row[0])
        assert row[2] != "0" or (float(row[6]) < 1e-12 and row[7] == "0.0e+00")
