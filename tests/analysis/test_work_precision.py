"""Work-precision tables against closed forms, `sample`, and known distributions."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis import (
    Gaussian,
    WorkPrecision,
    sampler_moments,
    transfer,
    two_gaussians,
    w2_gaussian,
    work_precision,
)
from logsnr.analysis.estimates import Estimate
from logsnr.analysis.metrics import w2_fitted
from logsnr.analysis.work_precision_plot import draw
from logsnr.analysis.work_precision_table import COSTS, METRICS

SCH = logsnr.VPLinear()
STDS = np.array([0.05, 0.3, 1.0])
DATA = Gaussian([0.5, -1.0, 0.0], STDS**2)


@pytest.fixture(scope="module")
def table() -> WorkPrecision:
    return work_precision(DATA, ["ddim", "dpm-1", "rk4", "dpmpp-3m"], (3, 9, 20), samples=40, seed=7, repeats=2)


def at(table: WorkPrecision, solver: str, nfe: int) -> Any:
    (row,) = (row for row in table.rows if (row.solver, row.nfe) == (solver, nfe))
    return row


def values(table: WorkPrecision) -> list[float]:
    return [x for row in table.rows for metric in METRICS for x in getattr(row, metric) if 0 < x < np.inf]


def test_errors_are_those_of_sample_against_the_flow() -> None:
    """median, rms and p90 are those of `sample` from draws of the marginal against `Gaussian.flow`, to 1e-12."""
    generator = torch.Generator().manual_seed(3)
    clean = DATA.sample(10, generator=generator)
    noise = torch.randn(10, 3, dtype=torch.float64, generator=generator)
    x = SCH.alpha(0.8) * clean + SCH.sigma(0.8) * noise
    y = logsnr.sample(DATA.denoiser(SCH), x, solver="deis-3", nfe=6, grid="karras", t_start=0.8, startup="single-step")
    errors = (y - DATA.flow(x, SCH, 0.8, SCH.t_end)).square().mean(1).sqrt().numpy()
    options = dict(grid="karras", startup="single-step", t_start=0.8)
    found = at(work_precision(DATA, "deis-3", 6, samples=10, seed=3, repeats=1, **options), "deis-3", 6)
    expected = [np.median(errors), np.sqrt(np.mean(errors**2)), np.sort(errors)[8]]
    np.testing.assert_allclose([found.median.value, found.rms.value, found.p90.value], expected, rtol=1e-12)
    assert found.nfe_used <= 6


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m"])
def test_gaussian_data_give_the_distances_of_the_exact_law(solver: str) -> None:
    """On Gaussian data W2, sliced W2 and rms are those of the sampler's exact law, up to 1.5 of their intervals."""
    row = work_precision(DATA, solver, 8, samples=1000, repeats=1, seed=1).rows[0]
    exact, gains = sampler_moments(solver, DATA, SCH, nfe=8), transfer(solver, SCH, STDS, nfe=8)
    mean, variance = (part.numpy() for part in DATA.marginal(SCH, SCH.t_end))
    gap = exact.mean.numpy() - mean
    error = np.sqrt(np.mean(gap**2 + (gains.gain / gains.exact - 1) ** 2 * variance))
    u = np.random.default_rng(2).standard_normal((3, 100_000))
    u /= np.linalg.norm(u, axis=0)
    along = np.sqrt(u.T**2 @ exact.cov.numpy()) - np.sqrt(u.T**2 @ variance)
    sliced = np.sqrt(np.mean((gap @ u) ** 2 + along**2))
    for estimate, truth in ((row.w2, exact.w2), (row.rms, error)):
        assert abs(np.log(estimate.value / truth)) < 1.5 * np.log(estimate.high / estimate.value)
        assert estimate.high / estimate.low < 1.3  # so that the wrong budget would be seen
    assert row.sliced_w2.value == pytest.approx(sliced, rel=0.15)  # 256 directions of three dimensions
    assert not row.w2.low < sampler_moments(solver, DATA, SCH, nfe=10).w2 < row.w2.high


@pytest.mark.parametrize("n", [50, 6, 3])
def test_fitted_w2_is_that_of_the_moments(n: int) -> None:
    """The distance of fits is `w2_gaussian` of the sample moments, with fewer samples than dimensions too."""
    generator = torch.Generator().manual_seed(n)
    x, y = (torch.randn(n, 2, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    y = 0.5 * y + 1
    moments = [part for z in (x, y) for part in (z.mean(0), torch.cov(z.flatten(1).mT))]
    assert w2_fitted(x, y) == pytest.approx(w2_gaussian(*moments), rel=1e-7)
    assert w2_fitted(x, x[torch.randperm(n)]) < 1e-7


def test_all_solvers_start_from_the_same_noise() -> None:
    """Every solver's first model call sees the same states, to the last bit."""
    seen = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if float(t[0]) == 1.0:
            seen.append(x.clone())
        return x * 0.5

    x = torch.randn(5, 2, dtype=torch.float64)
    found = work_precision(logsnr.Denoiser(model, SCH, "x0"), ["heun", "ddim", "deis-2"], (4, 6), x=x, repeats=2)
    assert len(seen) == 3 * 2 * 2
    assert all(torch.equal(each, x) for each in seen)
    assert found.conditions.start.startswith("given, ")


def test_equal_solvers_have_equal_errors(table: WorkPrecision) -> None:
    """DDIM and DPM-Solver-1, one method by two formulas, have the same row to 1e-9; another solver has not."""
    for nfe in (3, 9, 20):
        one, other, third = (at(table, name, nfe) for name in ("ddim", "dpm-1", "dpmpp-3m"))
        for metric in METRICS:
            np.testing.assert_allclose(getattr(one, metric), getattr(other, metric), rtol=1e-9)
            assert getattr(third, metric).value != pytest.approx(getattr(one, metric).value, rel=1e-2)


def test_the_seed_decides() -> None:
    """The same seed gives the same numbers, another one others."""
    tables = [work_precision(two_gaussians(), ["ddim"], 5, samples=20, seed=seed, repeats=1) for seed in (0, 0, 1)]
    assert values(tables[0]) == values(tables[1])
    assert not set(values(tables[0])) & set(values(tables[2]))
    assert tables[0].conditions == tables[1].conditions
    assert tables[2].conditions.seed == 1


def test_the_noise_level_is_that_of_independent_samples() -> None:
    """For N(0, s^2) the fits of two samples of N are s sqrt(3 / N) apart, in the root mean square."""
    said = work_precision(Gaussian(0.0, 4.0), "ddim", 3, samples=500, repeats=1).conditions
    assert said.w2_noise == pytest.approx(2 * np.sqrt(3 / 500), rel=0.5)
    assert said.w2_noise < said.sliced_w2_noise < 3 * said.w2_noise


def test_csv_round_trip(table: WorkPrecision, tmp_path: Path) -> None:
    """Every number read back is the number written, and every line has its problem, seed and reference."""
    table.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(table.rows)
    for line, row in zip(lines, table.rows, strict=True):
        assert line["problem"] == table.conditions.problem
        assert (line["seed"], line["samples"], line["dtype"]) == ("7", "40", "float64")
        assert (line["solver"], int(line["nfe"]), int(line["nfe_used"])) == (row.solver, row.nfe, row.nfe_used)
        for name in (*METRICS, "seconds", "outside"):
            assert tuple(float(line[name + end]) for end in ("", "_low", "_high")) == getattr(row, name)
        assert float(line["reference_error"]) == table.conditions.reference_error < 1e-9


def test_impossible_budgets_are_left_out_with_a_note(table: WorkPrecision) -> None:
    """A budget below one step has no row but a note; a budget that is not used up says what was."""
    assert [row.nfe for row in table.rows if row.solver == "rk4"] == [9, 20]
    assert table.notes == ("rk4 needs at least 4 model evaluations: no row at 3",)
    assert at(table, "rk4", 9).nfe_used == 8


def test_times_are_ordered(table: WorkPrecision) -> None:
    """The median time lies between the fastest and the slowest, and what is outside the model is less than all."""
    for row in table.rows:
        assert 0 < row.seconds.low <= row.seconds.value <= row.seconds.high
        assert 0 < row.outside.low <= row.outside.value < row.seconds.value


def test_the_text_fits_80_columns(table: WorkPrecision) -> None:
    """The printed table is at most 80 columns wide, names problem and seed, and has every row."""
    shown = str(table)
    assert max(map(len, shown.splitlines())) <= 80
    assert table.conditions.problem in shown
    assert "seed 7" in shown
    assert " 8/9 " in shown
    assert all(f"{row.rms.value:.2e}" in shown for row in table.rows)


@pytest.mark.parametrize("x", COSTS)
@pytest.mark.parametrize("metric", METRICS)
def test_plots_are_files_with_their_conditions(table: WorkPrecision, tmp_path: Path, x: str, metric: str) -> None:
    """Each choice of axes writes a file, whose picture names problem, seed and all solvers and has finite limits."""
    table.plot(tmp_path / "plot.svg", x=x, metric=metric)
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    figure = draw(table, x, metric)
    (ax,) = figure.axes
    title = ax.get_title(loc="left").replace("\n", " ")
    assert table.conditions.problem in title
    assert "seed 7" in title
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {"ddim", "dpm-1", "rk4", "dpmpp-3m"}
    assert ax.get_xscale() == ax.get_yscale() == "log"
    shown = [getattr(row, metric).value for row in table.rows]
    assert 0 < ax.get_ylim()[0] < min(shown) < max(shown) < ax.get_ylim()[1] < np.inf


def test_a_run_that_diverges_has_infinite_errors(tmp_path: Path) -> None:
    """A model that breaks down at one solver's times costs that row; table, plot and CSV say infinite."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * 0 if abs(float(t[0]) - 0.5) > 1e-9 else x * torch.nan

    den = logsnr.Denoiser(model, logsnr.FlowMatching(), "x0")
    x = torch.randn(6, 2, dtype=torch.float64)
    found = work_precision(den, "ddim", (1, 2), x=x, grid="time", repeats=1, t_end=0.01, t_start=0.99)
    assert found.rows[1].median == found.rows[1].w2 == Estimate(np.inf, np.inf, np.inf)
    assert found.rows[0].median.value < 1e-10
    found.plot(tmp_path / "plot.png")
    assert "infinite or 0 at" in draw(found, "nfe", "median").legends[0].get_texts()[0].get_text()
    assert " inf " in str(found)


def test_problems_differ_in_the_table() -> None:
    """Two Gaussians of one shape have different names in the table, one built twice has the same."""
    names = [
        work_precision(Gaussian([0.0, 0.0], cov), "ddim", 1, samples=4, repeats=1).conditions.problem
        for cov in (1.0, 1.0, 2.0)
    ]
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("Gaussian(event_shape=(2,)) ") for name in names)


def test_other_things_are_refused(table: WorkPrecision, tmp_path: Path) -> None:
    """What is no problem is a TypeError; unknown axes name the known ones, and nothing is written."""
    with pytest.raises(TypeError, match=r"problem must be a problem of logsnr\.analysis or a Denoiser, not str"):
        work_precision("digits", "ddim", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metric = 'w3' is unknown; did you mean 'w2'"):
        table.plot(tmp_path / "plot.png", metric="w3")
    with pytest.raises(ValueError, match="x = 'flops' is unknown; choose from nfe, seconds"):
        table.plot(tmp_path / "plot.png", x="flops")
    assert not list(tmp_path.iterdir())
