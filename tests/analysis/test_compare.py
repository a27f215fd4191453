"""`compare`: which solver suits a denoiser."""

import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis as A
from logsnr.analysis.compare_plan import candidates
from logsnr.analysis.comparison import beats
from logsnr.analysis.comparison_rows import exact_distances

SCH = logsnr.VPLinear()
DATA = A.Gaussian([0.3, -0.2], [0.09, 0.04])
DEN = DATA.denoiser(SCH)


@pytest.fixture(scope="module")
def found() -> A.Comparison:
    names = ("auto", "ddim", "dpmpp-2m", "dpm-3m", "er-sde-2")
    return A.compare(DEN, (4, 6), event_shape=(2,), solvers=names, grids=("logsnr", "time"))


@pytest.mark.parametrize("name", ["auto", "universal"])
def test_what_chooses_by_the_shape_of_a_sample_does_so_as_in_a_run(name: str) -> None:
    """Images of 8 x 8 have another table than numbers."""
    den = A.Gaussian([0.0] * 64, [0.3] * 64).denoiser(SCH)
    ((row,), _) = candidates(den, (64,), [8], name, "logsnr", "ramp", {})
    run = logsnr.solve(den, logsnr.start(SCH, (2, 64), seed=0), solver=name, nfe=8)
    assert row.program == run.program
    ((other,), _) = candidates(den, (1_000,), [8], name, "logsnr", "ramp", {})
    assert other.program != row.program


def test_the_errors_are_those_of_sample_against_the_exact_flow(found: A.Comparison) -> None:
    """The fine solve is as good as the closed form, within what it says of itself."""
    x = logsnr.start(SCH, (64, 2), seed=0)[:16]
    exact = DATA.flow(x.double(), SCH, SCH.t_start, SCH.t_end)
    (row,) = [r for r in found.rows if (r.solver, r.grid, r.startup, r.nfe) == ("dpm-3m", "logsnr", "ramp", 6)]
    made = logsnr.sample(DEN, x, solver="dpm-3m", nfe=6)
    errors = (made.double() - exact).square().mean(1).sqrt().numpy()
    np.testing.assert_allclose(row.errors, errors, rtol=1e-2, atol=2e-6)
    assert row.median == pytest.approx(float(np.median(errors)), rel=1e-2)
    assert row.rms == pytest.approx(float(np.sqrt(np.mean(errors**2))), rel=1e-2)
    assert found.conditions.error < 1e-5


def test_every_solver_grid_and_start_is_one_row(found: A.Comparison) -> None:
    """Starts that make the same program are one row; "auto" brings its grid; stochastic ones are in the other table."""
    at = {(r.solver, r.grid, r.startup) for r in found.rows if r.nfe == 6}
    assert ("auto", "own", "") in at
    assert {s for s in at if s[0] == "ddim"} == {("ddim", "logsnr", "ramp"), ("ddim", "time", "ramp")}
    assert len({s for s in at if s[0] == "dpm-3m"}) == 4
    assert {law.solver for law in found.laws} == {"er-sde-2"}
    assert all(r.nfe_used <= r.nfe for r in found.rows)


def test_the_best_can_be_run(found: A.Comparison) -> None:
    """`best` has the least median error of its budget, and its program is what `sample` takes."""
    best = found.best(6)
    assert best.median == min(r.median for r in found.rows if r.nfe == 6)
    assert len(best.program) <= 6
    assert found.best() is found.best(6)
    x = logsnr.start(SCH, (3, 2), seed=5)
    assert logsnr.sample(DEN, x, solver=best.program).shape == (3, 2)
    with pytest.raises(ValueError, match=r"nfe = 5 was not measured; .* there are: \[4, 6\]"):
        found.best(5)


def test_the_verdict_says_what_to_use(found: A.Comparison) -> None:
    """A sentence for every budget, with the error of the best, of auto, and of the reference."""
    best = found.best(6)
    said = found.verdict(6)
    assert said.startswith(f"At 6 evaluations: `{best.solver}`")
    assert f"median error {best.median:.2g}" in said
    assert "The reference is good to" in said
    assert "With noise `er-sde-2`" in said
    assert str(found).count("At ") == 2
    assert max(map(len, str(found).splitlines())) <= 80


def test_below_the_error_of_the_reference_nothing_is_ranked(found: A.Comparison) -> None:
    """Rows that the reference cannot tell apart stay in the order in which they were asked for, and the verdict says
    that any will do."""
    coarse = replace(found, conditions=replace(found.conditions, error=1.0))
    assert [row.solver for row in coarse.ranked(6)] == [row.solver for row in found.rows if row.nfe == 6]
    assert "cannot be ranked" in coarse.verdict(6)
    assert len(coarse.alike(6)) == len(coarse.ranked(6)) - 1


def test_a_solver_that_is_not_finite_is_a_row_that_says_so() -> None:
    """A model that overflows at one call spoils the runs that make it, not the comparison."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where((t - 0.305).abs().reshape(-1, 1) < 1e-5, torch.nan, 0.1 * x)

    bad = logsnr.solver("ddim").program(SCH, (1.0, 0.305, 0.001))
    found = A.compare(logsnr.Denoiser(model, SCH, "x0"), 2, event_shape=(2,), solvers=[bad, "ddim"], grids="logsnr")
    row = next(r for r in found.rows if r.program == bad)
    assert row.median == math.inf
    assert row.note == "16 of 16 samples not finite"
    assert row.note in str(found)
    assert found.best().solver == "ddim"


def test_budgets_that_do_not_fit_are_notes() -> None:
    """Four stages do not fit into three evaluations, and there are no universal tables at 50."""
    found = A.compare(DEN, (3, 50), event_shape=(2,), solvers=("ddim", "rk4", "universal"), grids="logsnr", samples=4)
    wanted = [("rk4", 3), ("universal", 50)]
    assert [note.split(":")[0] for note in found.notes] == [f"no row of {s} at {n} evaluations" for s, n in wanted]


def test_a_tuned_table_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fitted to other noises than it is measured on."""
    seen = []

    def fitted(den: logsnr.Denoiser, x: torch.Tensor, nfes: list[int], **options: object) -> dict:
        seen.append(x)
        return {n: logsnr.solver("dpm-3m").program(SCH, logsnr.grid(SCH, n)) for n in nfes}

    monkeypatch.setattr(sys.modules[A.compare.__module__], "tune", fitted)
    found = A.compare(DEN, (1, 6), event_shape=(2,), solvers="ddim", grids="logsnr", tuned=64)
    assert [(row.solver, row.nfe) for row in found.rows] == [("ddim", 1), ("ddim", 6), ("tuned", 6)]
    assert found.best().solver == "tuned"
    assert "tuned on 64 other noises" in " ".join(str(found).split())
    assert not torch.isin(seen[0], logsnr.start(SCH, (64, 2), seed=0)).any()


def test_starts_of_ones_own_count_as_samples() -> None:
    x = logsnr.start(SCH, (5, 2), seed=3, dtype=torch.float64)
    found = A.compare(DEN, 4, x=x, solvers="ddim", grids="logsnr")
    assert len(found.rows[0].errors) == found.conditions.samples == 5


def test_a_law_is_as_near_as_exact_samples_where_it_is_exact() -> None:
    """Of two sets of draws the distance is within the band of exact samples; of shifted ones it is not."""
    g = torch.Generator().manual_seed(0)
    one, two = (torch.randn(200, 3, dtype=torch.float64, generator=g) for _ in range(2))
    middle, high = exact_distances(one, 200, 0)["energy_distance"]
    assert middle < high
    assert A.energy_distance(one, two) < high
    assert A.energy_distance(one, two + 0.5) > high


def test_a_sign_test_tells_solvers_apart() -> None:
    one = np.linspace(1.0, 2.0, 16)
    assert beats(one, one + 0.1)
    assert not beats(one, one)
    assert not beats(one, one + np.where(np.arange(16) % 2, 0.1, -0.1))


def test_the_pictures(found: A.Comparison, tmp_path: Path) -> None:
    """Of several budgets and of one."""
    for name, some in (("several", found), ("one", A.compare(DEN, 4, event_shape=(2,), solvers="ddim", samples=4))):
        path = tmp_path / f"{name}.svg"
        figure = some.plot(path)
        assert path.stat().st_size > 1000
        assert [ax.get_xscale() for ax in figure.axes] == ["log"]


def test_the_picture_of_one_budget_is_a_list(found: A.Comparison) -> None:
    """The best is on top; each has its grid."""
    one = replace(found, rows=tuple(row for row in found.rows if row.nfe == 6))
    (ax,) = one.plot().axes
    told = [label.get_text() for label in ax.get_yticklabels()]
    assert told[0] == f"{one.best().solver}, {one.best().grid}"
    assert sorted(name.split(",")[0] for name in told) == sorted({row.solver for row in one.rows})
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_the_picture_of_many_solvers_names_the_best(found: A.Comparison, tmp_path: Path) -> None:
    """The others have no name, for which there is no room: matplotlib would warn of it."""
    many = replace(found, rows=tuple(replace(row, solver=f"{row.solver}-{k}") for k in range(12) for row in found.rows))
    figure = many.plot(tmp_path / "many.png")
    assert len(figure.axes[0].get_lines()) == len({row.solver for row in many.rows}) == 48
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(names) == 12
    assert names[0] == many.best().solver


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(), "needs either x, start states (B, ...), or event_shape"),
        (dict(event_shape=(0,)), "event_shape must hold positive integers"),
        (dict(event_shape=()), "samples must have an axis"),
        (dict(x=torch.zeros(16)), "samples must have an axis"),
        (dict(event_shape=(2,), solvers="dpmpp2m"), "did you mean 'dpmpp-2m'"),
        (dict(event_shape=(2,), solvers=()), "solvers is empty"),
        (dict(event_shape=(2,), solvers="bosh3"), "chooses its own steps"),
        (dict(event_shape=(2,), solvers="rk4", nfe=3), "there is nothing to compare: no row of rk4 at 3 evaluations"),
        (dict(event_shape=(2,), grids="karas"), "did you mean 'karras'"),
        (dict(event_shape=(2,), startups="warm"), "startup"),
        (dict(event_shape=(2,), nfe=0), "nfe must be a whole number from 1 to 1000000, not 0"),
        (dict(event_shape=(2,), nfe=()), "nfe is empty"),
        (dict(event_shape=(2,), samples=2), "samples"),
        (dict(event_shape=(2,), tuned=8), "tuned, a number of noises,"),
        (dict(event_shape=(2,), threshold=-1.0), "threshold = -1.0 must be positive"),
        (dict(x=torch.ones(5, 2), solvers="ddpm"), "give event_shape, not x"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_call(options: dict, said: str) -> None:
    den = logsnr.Denoiser(lambda x, t: pytest.fail("the model was called"), SCH, "x0")
    with pytest.raises(ValueError, match=re.escape(said)):
        A.compare(den, **options)
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser"):
        A.compare(DATA, event_shape=(2,))


def test_an_interrupt_returns_the_rows_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none where there are none."""
    compare: Any = sys.modules[A.compare.__module__]
    left = 2

    def run(*given: Any) -> torch.Tensor:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return known(*given)

    known = compare._run
    monkeypatch.setattr(compare, "_run", run)
    names = ("ddim", "dpmpp-2m", "dpmpp-3m")
    given: dict[str, Any] = {"event_shape": (2,), "solvers": names, "grids": "time", "startups": "ramp"}
    with pytest.warns(UserWarning, match="stopped after 2 of 3 runs"):
        found = A.compare(DEN, 4, **given)
    assert [row.solver for row in found.rows] == ["ddim", "dpmpp-2m"]
    assert "stopped after 2 of 3 runs" in str(found)
    with pytest.raises(KeyboardInterrupt):
        A.compare(DEN, 4, **given)
