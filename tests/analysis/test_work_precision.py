"""Work-precision tables of exact problems against closed forms, `sample`, and equal solvers."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis import Comparison, Gaussian, work_precision

SCH = logsnr.VPLinear()
DATA = Gaussian([0.5, -1.0, 0.0], [0.0025, 0.09, 1.0])


@pytest.fixture(scope="module")
def table() -> Comparison:
    return work_precision(DATA, ["ddim", "rk4", "dpmpp-3m", "ddpm"], (3, 9), samples=40, seed=7)


def test_errors_are_those_of_sample_against_the_flow() -> None:
    """Median and rms are those of `sample` from draws of the marginal against `Gaussian.flow`, to 1e-12."""
    generator = torch.Generator().manual_seed(3)
    clean = DATA.sample(10, generator=generator)
    noise = torch.randn(10, 3, dtype=torch.float64, generator=generator)
    x = SCH.alpha(0.8) * clean + SCH.sigma(0.8) * noise
    y = logsnr.sample(DATA.denoiser(SCH), x, solver="deis-3", nfe=6, grid="karras", t_start=0.8, startup="single-step")
    errors = (y - DATA.flow(x, SCH, 0.8, SCH.t_end)).square().mean(1).sqrt().numpy()
    options = dict(grid="karras", startup="single-step", t_start=0.8)
    (found,) = work_precision(DATA, "deis-3", 6, samples=10, seed=3, **options).rows
    np.testing.assert_allclose([found.median, found.rms], [np.median(errors), np.sqrt(np.mean(errors**2))], rtol=1e-12)


def test_the_table(table: Comparison) -> None:
    """Rows by budget, of what is possible; laws of what adds noise; the conditions in words."""
    assert [(row.solver, row.nfe) for row in table.rows] == [
        ("ddim", 3), ("dpmpp-3m", 3), ("ddim", 9), ("rk4", 9), ("dpmpp-3m", 9)
    ]  # fmt: skip
    assert [law.nfe for law in table.laws] == [3, 9]
    assert table.notes[0].startswith("no row of rk4 at 3 evaluations")
    assert table.best(9).solver == "dpmpp-3m"
    assert "Reference: exact, good to 1e-10" in str(table)
    assert "40 samples of 3 (40 of stochastic solvers), t = 1 to 0.001, seed 7" in " ".join(str(table).split())


def test_the_seed_decides() -> None:
    """The same seed gives the same numbers, another one others."""
    medians = [work_precision(DATA, "ddim", 5, samples=20, seed=seed).rows[0].median for seed in (0, 0, 1)]
    assert medians[0] == medians[1] != medians[2]


def test_other_things_are_refused() -> None:
    """What is no problem is a TypeError that names `compare`; bad numbers are ValueErrors."""
    with pytest.raises(TypeError, match=r"problem must be a problem of logsnr\.analysis, not Denoiser; use compare"):
        work_precision(DATA.denoiser(SCH), "ddim", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples"):
        work_precision(DATA, "ddim", 5, samples=2)
    with pytest.raises(ValueError, match="nfes must be a whole number from 1"):
        work_precision(DATA, "ddim", 0)
