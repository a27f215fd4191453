"""The bench of parallel runs: its flat clock, and the table."""

import math

import pytest
import torch
import typer

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
    """A row for every number of steps, method, window and tolerance; at tolerance 0 the distance is that of the
    model's own answers in different batches, and the estimate 0."""
    threads = torch.get_num_threads()
    picard.main("digits", "dpmpp-2m", [6, 9], [1e-2, 0.0], [4, 0], [*picard.METHODS], 2, 0.02)
    torch.set_num_threads(threads)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert [row[:4] for row in rows] == [
        [method, str(steps), width, tol]
        for steps in (6, 9)
        for method in ("none", "secant")
        for width in ("4", str(steps))
        for tol in ("0.01", "0")
    ]
    for row in rows:
        assert int(row[4]) <= int(row[5]) <= int(row[1])
        assert row[3] != "0" or (float(row[7]) < 1e-12 and row[8] == "0.0e+00")


def test_an_unknown_method() -> None:
    """A method that does not exist is refused with the nearest name."""
    with pytest.raises(typer.BadParameter, match="'secnat' is unknown; did you mean 'secant'"):
        picard.main(method=["secnat"])
