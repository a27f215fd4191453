"""solver="auto": one method and one grid for a budget, told in the program's name."""

import math

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis as A
from logsnr.bench import choose_auto
from logsnr.bench.unseen import RANGES
from logsnr.solvers.catalogue.auto import AUTO, ENOUGH, MOST, Auto
from logsnr.solvers.catalogue.auto_table import TABLE
from logsnr.solvers.tuning.stored import FAMILY, FITTED_TO
from logsnr.solvers.tuning.universal import Universal, find_table

SCHEDULES = [
    logsnr.VPLinear(), logsnr.EDM(), logsnr.FlowMatching(), logsnr.VPCosine(), logsnr.VE(), logsnr.Trigonometric(),
]  # fmt: skip


def denoiser(sch: logsnr.Schedule) -> logsnr.Denoiser:
    """Of Gaussian data with mean 0.3 and variance 0.25."""

    def x0(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (f(t).reshape(-1, *[1] * (x.ndim - 1)) for f in (sch.alpha, sch.sigma))
        return (0.25 * alpha * x + 0.3 * sigma**2) / (0.25 * alpha**2 + sigma**2)

    return logsnr.Denoiser(x0, sch, "x0")


@pytest.mark.parametrize("sch", SCHEDULES, ids=str)
@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 8, 20, 60])
def test_a_budget_is_used_up(sch: logsnr.Schedule, nfe: int) -> None:
    """On every schedule, infinite ends included: as many evaluations as there are, or as a table has that beats them,
    between the schedule's own ends."""
    program = logsnr.solve(denoiser(sch), torch.ones(2, 3).double(), solver="auto", nfe=nfe).program
    assert program
    assert (program.times[0], program.times[-1]) == (sch.t_start, sch.t_end)
    if program.provenance:
        assert program.name.startswith("auto: universal(width=0.693, data_std=1)")
        assert ENOUGH * nfe <= len(program) <= nfe <= MOST
        return
    assert len(program) == nfe
    assert program.name.startswith("auto: adams(gauge=")
    assert "logistic(share=" in program.name


def test_it_is_the_default_and_the_method_that_it_names() -> None:
    """Without a solver; the same numbers as by its name and grid."""
    den, x = denoiser(logsnr.VPLinear()), torch.randn(4, 3, dtype=torch.float64)
    found = logsnr.solve(den, x, nfe=60)
    method, steps, grid, options, _ = Auto().choose(den.schedule, 1.0, 1e-3, 60)
    again = logsnr.solve(den, x, solver=method, steps=steps, grid=grid, grid_options=options)
    assert torch.equal(found.x, again.x)
    assert torch.equal(found.x, logsnr.sample(den, x, solver="auto", steps=60))
    few = logsnr.solve(den, x, nfe=10)
    table = logsnr.solve(den, x, solver="universal", steps=10)
    assert few.program
    assert table.program
    assert few.program.provenance
    assert torch.equal(few.x, table.x)


def test_the_data_say_which_table_serves() -> None:
    """By the size of the samples, what the user says of them, and whether the model is guided; none is taken where none
    was made, and why is in the notes: beyond the widest family, and for guided models of wide data."""
    sch = logsnr.VPLinear()
    den = denoiser(sch)

    def program(
        nfe: int, event: tuple[int, ...] = (3,), den: logsnr.Denoiser = den, **options: float
    ) -> logsnr.Program:
        found = logsnr.solve(den, torch.ones(2, *event), solver="auto", nfe=nfe, **options).program  # type: ignore[arg-type]
        assert found
        return found

    assert program(8).grid == program(8, (2,)).grid
    for wide in (program(8, (3, 8, 8)), program(8, (1, 1, 3), width=10.0)):
        assert wide.provenance[FAMILY] == "wide"
    for groups in (program(8, (320,)), program(8, (190,)), program(8, width=10.0)):
        assert groups.provenance[FAMILY] == "groups"
    for size, family in ((3, "points"), (4, "narrow"), (39, "narrow"), (40, "vectors"), (128, "vectors")):
        assert program(8, (size,)).provenance[FAMILY] == family
    assert program(8, (1, 8, 8)).provenance[FAMILY] == program(8, (3, 4, 4)).provenance[FAMILY] == "pictures"
    assert program(13, (8,)).provenance[FAMILY] == program(13, (1, 8, 8)).provenance[FAMILY] == "narrow"
    few = {"event": (1, 1, 3), "width": 4.5}  # with few evaluations tables of narrow data bear more
    assert [program(n, **few).provenance[FAMILY] for n in (10, 11)] == ["pictures", "wide"]  # type: ignore[arg-type]
    assert program(8, width=32.0).provenance[FAMILY] == "vast"
    assert any("beyond 100" in note for note in program(8, width=1e3).notes)
    assert any("is far from" in note for note in program(8, data_std=50.0).notes)
    assert "order=3, corrector=True) on karras()" in program(41, width=10.0).name == program(41, width=1e3).name
    guided = logsnr.Denoiser(
        lambda x, t, y: den.model(x, t) + y, sch, "x0", conditions={"y": torch.zeros(2, 1)},
        guidance=logsnr.Guidance(2.0, uncond={"y": torch.ones(2, 1)}),
    )  # fmt: skip
    assert program(8, den=guided).provenance[FAMILY] == "guided"
    vectors = find_table(Universal().suited((128,), guided=True, head="x0"), sch, 1.0, 1e-3, 8)
    assert not isinstance(vectors, str)
    assert vectors.told[FAMILY] == "guided"
    assert any(
        "for guided models, a widest direction of 10 is beyond 5" in note
        for note in program(8, den=guided, width=10.0).notes
    )
    assert not any("no universal table" in note for note in program(40).notes)
    with pytest.raises(ValueError, match="width = -1 must be a positive number"):
        program(8, width=-1)


def test_formulas_go_by_how_much_of_the_data_the_start_has() -> None:
    """Where a run begins in data, a corrector of second order from 15 steps on; from 36 on one of third order anywhere,
    but with guidance. Wide data get Karras' grid from any start."""
    sch = logsnr.EDM(0.01, 100.0)

    def chosen(width: float, steps: int, **hints: float) -> tuple[int, bool]:
        found = Auto(width, **hints).formula(sch, 100.0, 0.01, steps)  # type: ignore[arg-type]
        assert found.grid == "karras"
        return found.solver.planner.order, found.solver.planner.corrector  # type: ignore[union-attr]

    assert [chosen(10.0, n) for n in (8, 15, 35, 36)] == [(3, False)] * 3 + [(3, True)]
    assert [chosen(50.0, n) for n in (8, 14, 15, 35, 36)] == [(3, False)] * 2 + [(2, True)] * 2 + [(3, True)]
    assert [chosen(50.0, n, guided=True) for n in (14, 15, 36)] == [(2, False), (2, True), (2, True)]
    assert [chosen(10.0, n, guided=True) for n in (35, 36)] == [(3, False), (3, True)]
    assert chosen(50.0, 15, data_std=10.0) == (2, True)  # by the width that it is, not the usual one
    noisy = RANGES["zero"]
    for width, grid in ((10.0, "karras"), (2.0, "logsnr")):
        assert Auto(width).formula(noisy, noisy.t_start, noisy.t_end, 50).grid == grid


def test_wide_data_get_a_grid_that_is_fine_where_their_flow_bends() -> None:
    """On an image's spectrum the grids that were measured on narrow data lose a factor of ten."""
    sch, spectrum = logsnr.VPLinear(), 15.0 * torch.arange(1, 65, dtype=torch.float64) ** -1.5
    g = torch.Generator().manual_seed(4)
    means = spectrum * torch.randn(6, 64, dtype=torch.float64, generator=g)
    den = A.GaussianMixture(means, (0.4 * spectrum) ** 2 + 0.0004 * torch.ones(6, 64)).denoiser(sch)
    x = logsnr.start(sch, (24, 64), seed=2, dtype=torch.float64)
    end = logsnr.sample(den, x, solver="unipc-4", steps=200)

    def error(width: float) -> float:
        return float((logsnr.sample(den, x, nfe=30, width=width) - end).square().mean(1).sqrt().median())

    assert error(15.0) < 0.1 * error(1.0)


@pytest.mark.parametrize(("nfe", "steps"), [(19, 19), (20, 20), (23, 20), (26, 25), (31, 25), (33, 33), (40, 40)])
def test_a_table_of_its_own_goes_before_one_of_many_budgets(nfe: int, steps: int) -> None:
    """Up to a fifth fewer evaluations, on narrow data."""
    found = logsnr.solve(denoiser(logsnr.VPLinear()), torch.ones(2, 8), nfe=nfe)
    assert found.nfe == steps
    assert found.program
    assert (FITTED_TO in found.program.provenance) == (nfe > 31)


@pytest.mark.parametrize("width", [1.0, 14.0])
@pytest.mark.parametrize("start", ["signal", "noise"])
def test_many_steps_past_the_last_level(start: str, width: float) -> None:
    """Beyond all tables, on Stable Diffusion's levels: on narrow data a gauge that goes on past the last of them with
    older answers had 100 to 900 times the error."""
    sch = RANGES["sd" if start == "signal" else "zero"]
    g = torch.Generator().manual_seed(4)
    means = 0.4 * width * torch.randn(6, 16, dtype=torch.float64, generator=g)
    den = A.GaussianMixture(means, (0.2 * width) ** 2 * torch.ones(6, 16)).denoiser(sch)
    x = logsnr.start(sch, (16, 16), seed=2, dtype=torch.float64)
    end = logsnr.sample(den, x, solver="dpm-4m", steps=300)

    def error(**options: object) -> float:
        return float((logsnr.sample(den, x, nfe=60, **options) - end).square().mean(1).sqrt().median())

    named = min(error(solver=name, grid=grid) for name in ("unipc-3", "dpm-4m") for grid in ("logsnr", "karras"))
    assert error(width=width) < (2.5 if width == 1 else 4.0) * named


def test_errors_fall_with_the_budget() -> None:
    """On Gaussian data, whose flow is known."""
    sch = logsnr.EDM()
    x = 80 * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = 0.3 + (x - 0.3) * math.sqrt((0.25 + 0.002**2) / (0.25 + 80**2))
    errors = [float((logsnr.sample(denoiser(sch), x, nfe=n) - exact).abs().max()) for n in (5, 10, 20, 40)]
    assert errors[0] < 0.1
    assert errors[2] < 0.3 * errors[0]
    assert errors[3] < 1e-3


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.EDM()], ids=str)
@pytest.mark.parametrize("steps", [5, 8])
def test_few_steps_to_the_noise(sch: logsnr.Schedule, steps: int) -> None:
    """Half the error of what is measured for the other way, and at 8 steps less than that of a plain method."""
    data = A.two_gaussians()
    x0 = data.sample(64, generator=torch.Generator().manual_seed(0)).double()
    den, ends = data.denoiser(sch), {"t_start": sch.t_end, "t_end": sch.t_start}
    exact = data.reference(x0, sch, sch.t_end, sch.t_start)

    def error(**options: object) -> float:
        return float((logsnr.sample(den, x0, steps=steps, **ends, **options) - exact).abs().median())

    choice = Auto().formula(sch, sch.t_end, sch.t_start, steps)
    other = error(solver=choice.solver, grid=choice.grid, grid_options=dict(choice.options))
    assert error() < 0.5 * other
    assert steps < 8 or error() < error(solver="dpmpp-2m")


def test_grids_of_ones_own_are_kept() -> None:
    """By name or as times: then only the method is chosen."""
    den, x = denoiser(logsnr.VPLinear()), torch.ones(2, 3).double()
    for grid in ("karras", logsnr.grid(den.schedule, 8, "karras")):
        options = {"steps": 8} if isinstance(grid, str) else {}
        program = logsnr.solve(den, x, solver="auto", grid=grid, **options).program  # type: ignore[arg-type]
        assert program
        np.testing.assert_array_equal(program.grid, logsnr.grid(den.schedule, 8, "karras"))


def test_the_range_decides() -> None:
    """A part of a schedule gets what the nearest range of the table has, in either direction of time."""
    auto, sch = Auto(), logsnr.EDM()
    for ends, rows in TABLE.items():
        first, last = (math.exp(-lam) for lam in ends)
        if first <= 80:
            chosen = auto.choose(sch, first, last, 1000)
            assert chosen == auto.choose(sch, last, first, 1000)
            assert tuple(chosen.options.values()) == rows[max(rows)][-3:]


def test_what_is_missing_or_too_much_is_told() -> None:
    """A budget or a number of steps, one of them; no tolerances."""
    den, x = denoiser(logsnr.VPLinear()), torch.ones(2, 3).double()
    with pytest.raises(ValueError, match="give either steps or nfe"):
        logsnr.sample(den, x, solver="auto")
    with pytest.raises(ValueError, match="give either steps or nfe"):
        logsnr.sample(den, x, solver="auto", steps=3, nfe=3)
    with pytest.raises(ValueError, match="rtol and atol are for adaptive solvers; auto takes fixed steps"):
        logsnr.sample(den, x, solver="auto", rtol=1e-3)
    with pytest.raises(ValueError, match="order = 3 is not an option of auto: it has data_std, width"):
        logsnr.sample(den, x, solver="auto", nfe=3, order=3)
    assert AUTO.name not in logsnr.solver_names()


def test_the_measured_problems_are_what_they_seem() -> None:
    """The denoiser of problems side by side is each mixture's own, and the base of the comparison is met by itself."""
    few = choose_auto.problems(3)
    x = torch.randn(5, choose_auto.COUNT, choose_auto.SIZE, dtype=torch.float64)
    for sigma in (0.01, 0.5, 20.0):
        found = few(x, torch.full((5,), sigma))
        for p in (0, 4, 8, 11):
            kept = few.weights[p] > 0
            own = A.GaussianMixture(few.means[p][kept], few.variances[p][kept], few.weights[p][kept])
            expected = own.posterior(x[:, p], 1.0, sigma)[0]
            torch.testing.assert_close(found[:, p], expected, rtol=1e-6, atol=1e-7)
    assert choose_auto.score(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0
    assert choose_auto.score(np.array([2.0]), np.array([1.0])) == -2 * choose_auto.score(
        np.array([1.0]), np.array([2.0])
    )
