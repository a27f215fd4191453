"""Stochastic solvers in the bench: by the law of what they generate."""

import csv
import re
from dataclasses import replace
from functools import cache
from io import StringIO
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
import torch
from bench_runs import ignore
from rich.console import Console

import logsnr
from logsnr.analysis import energy_distance, mmd, sliced_w2
from logsnr.bench import job, problems, references
from logsnr.bench.problems import draw_seen, load_problem
from logsnr.bench.references import load_reference
from logsnr.bench.report.plots import error_plot
from logsnr.bench.report.sheets import take_pictures
from logsnr.bench.report.tables import Board, Line, legend, terminal_table
from logsnr.bench.results import LAW, STATISTICS, Case, Results, Row, versions
from logsnr.bench.work_precision import LAW_SOLVERS, NFES, Plan, cases, check_plan, measure

CASE = Case("gaussian", "sde-dpmpp-2m", "ramp", "logsnr", 6, None, 50, 3, "law")


@cache
def kept():
    """Where the benches of this file keep their references, which have few replicas: apart from those of others."""
    return TemporaryDirectory()


def bench(out, plan, problem="gaussian", page=True):
    console = Console(file=StringIO(), width=80)
    with patch.multiple(job, CACHE=kept().name, write_report=job.write_report if page else ignore):
        job.run_bench([problem], plan, out, fresh=False, command=["logsnr", "bench"], console=console)
    with (out / "results.csv").open(newline="") as file:
        return console.file.getvalue(), list(csv.DictReader(file))


def row(solver="ddpm", nfe=10, value=0.2, exact=0.1):
    case = replace(CASE, solver=solver, nfe=nfe)
    levels = {"": value, "_exact": exact, "_low": 0.9 * exact, "_high": 1.1 * exact}
    found = {f"{name}{end}": level for name in LAW for end, level in levels.items()}
    return Row(case, nfe, found, "here")


@pytest.fixture(scope="module", autouse=True)
def little_work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "REPLICAS", 4)
        patch.setattr(problems, "TARGET", 80)
        yield


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    problem = load_problem("gaussian")
    return problem, load_reference(problem, "law", 50, 3, tmp_path_factory.mktemp("cache"))


def test_named_together_deterministic_solvers_are_compared_in_both_ways(tmp_path):
    """Next to a stochastic solver ddim has rows of paths and in law, bosh3 of paths only, and ddpm in law only."""
    plan = Plan(solvers=("ddim", "ddpm", "bosh3"), nfes=(4,), grids=("time",), rtols=(1e-2,), samples=8)
    shown, rows = bench(tmp_path, plan, page=False)
    found = [(r["solver"], r["compared"]) for r in rows]
    assert found == [("ddim", "path"), ("bosh3", "path"), ("ddim", "law"), ("ddpm", "law")]
    for r in rows:
        filled = {name for names in STATISTICS.values() for name in names if r[name]}
        assert filled == set(STATISTICS[r["compared"]])
    assert "gaussian: median error of 8 samples" in shown
    assert "gaussian: sliced W2 of 8 samples from 80 exact samples" in shown


@pytest.mark.parametrize(
    ("problem", "named", "compared"),
    [
        ("digits", (), set(LAW_SOLVERS)),
        ("mixture", (), set()),
        ("digits", ("ddim", "dpmpp-3m"), set()),
        ("mixture", ("seeds-2",), {"seeds-2"}),
    ],
)
def test_what_is_compared_in_law(problem, named, compared):
    """A few solvers on images if none are named, else those named with a stochastic one, on one grid and start-up."""
    wanted = [case for case in cases(load_problem(problem), Plan(named))[0] if case.compared == "law"]
    assert {case.solver for case in wanted} == compared
    assert {(case.grid, case.startup) for case in wanted} <= {("logsnr", "ramp")}
    assert len(wanted) == len(set(wanted))


def test_all_is_every_solver_with_fixed_steps():
    """`all` compares every solver that has fixed steps in law, of equal ones the first."""
    wanted = {case.solver for case in cases(load_problem("gaussian"), Plan(("all",)))[0] if case.compared == "law"}
    covered = wanted.union(*(logsnr.solver(name).equals for name in wanted))
    assert covered == {name for name in logsnr.solver_names() if logsnr.solver(name).planner}
    assert not any(set(logsnr.solver(name).equals) & wanted for name in wanted)


def test_the_distances_are_those_of_what_sample_generates(law):
    """A row holds sliced W2, energy distance and MMD of `sample` from `randn` with the same seed to the target."""
    problem, reference = law
    found, end = measure(problem, CASE, reference)
    sch = logsnr.VPLinear()
    x = sch.sigma(1.0) * logsnr.randn((50, 64), seed=3, dtype=torch.float64)
    y = logsnr.sample(problem.denoiser, x, solver="sde-dpmpp-2m", nfe=6, seed=3)
    assert torch.equal(end, y)
    for name, distance in (("sliced_w2", sliced_w2), ("energy_distance", energy_distance), ("mmd", mmd)):
        assert found.statistics[name] == distance(y, problem.law.target)
    other, _ = measure(problem, replace(CASE, seed=4), reference)
    assert other.statistics["sliced_w2"] != found.statistics["sliced_w2"]


@pytest.mark.parametrize("name", ["mixture", "gaussian", "digits"])
def test_a_perfect_sampler_is_within_the_sampling_error(name, tmp_path, monkeypatch):
    """Of 40 new sets of exact samples 70 % or more are within its band, by every distance; spread 1.5-fold, few are."""
    problem = load_problem(name)
    monkeypatch.setattr(references, "REPLICAS", 40)
    reference = load_reference(problem, "law", 60, 0, tmp_path)
    generator = torch.Generator().manual_seed(7)
    draws = [problem.law.draw(60, generator) for _ in range(40)]

    def share(factor, distance):
        found = [references.DISTANCES[distance](factor * draw, problem.law.target) for draw in draws]
        exact = reference.exact[distance]
        return np.mean([exact.low <= value <= exact.high for value in found])

    for distance in LAW:
        assert share(1.0, distance) >= 0.7  # the band comes from 40 samples itself
        assert share(1.5, distance) <= 0.4
    assert problem.law.target.shape[1:] == draws[0].shape[1:] == problem.event_shape


def test_the_sampling_error_of_the_network_is_that_of_real_digits():
    """draw_seen returns training digits, each once while there are enough, with the noise of the schedule's end."""
    seen = logsnr.analysis.load_digits(split="train")[0]
    draws = draw_seen(len(seen) + 5, torch.Generator().manual_seed(0))
    gaps = torch.cdist(draws.flatten(1), seen.flatten(1))
    assert gaps.amin(1).max() < 0.15  # sqrt(64) times sigma(t_end) = 0.01, and some
    assert len(gaps.argmin(1)[: len(seen)].unique()) == len(seen.unique(dim=0))
    held_out = load_problem("digits-net").law.target
    assert torch.cdist(held_out.flatten(1), seen.flatten(1)).amin() > 0.15


def test_the_sampling_error_is_kept(law, tmp_path, monkeypatch):
    """Distances of exact samples are computed once."""
    problem = law[0]
    first = load_reference(problem, "law", 6, 0, tmp_path)
    monkeypatch.setattr(references, "_exact_distances", lambda *args: pytest.fail("computed again"))
    assert load_reference(problem, "law", 6, 0, tmp_path).exact == first.exact


def test_a_solver_that_diverges_is_at_an_infinite_distance(law):
    """A model that returns NaN ends one row, not the bench."""
    problem, reference = law
    broken = logsnr.Denoiser(lambda x, t: x * torch.nan, problem.denoiser.schedule, "x0")
    found, _ = measure(replace(problem, denoiser=broken), CASE, reference)
    assert all(found.statistics[name] == np.inf for name in LAW)
    assert np.isfinite(found.statistics["sliced_w2_high"])


def test_a_row_survives_the_csv(tmp_path):
    """A row in law read back equals the row written."""
    results = Results(tmp_path / "results.csv")
    written = replace(row(value=np.pi), versions=versions())
    results.add(written)
    assert Results(tmp_path / "results.csv").get(written.case) == written


def test_fewer_starts_are_the_first_of_more():
    """A problem's starts are addressed: those of paths are the first of those in law."""
    problem = load_problem("digits-net")
    assert torch.equal(problem.start(3, 1), problem.start(5, 1)[:3])


def test_pictures_are_the_same_when_made_again(tmp_path):
    """Images made anew for rows of the CSV are those of the run, noise included."""
    problem = load_problem("digits")
    case = replace(CASE, problem="digits", nfe=4, samples=70)
    reference = load_reference(problem, "law", 70, 3, tmp_path)
    found, end = measure(problem, case, reference)
    board = Board.of([found], "sliced_w2")
    at = Line("sde-dpmpp-2m"), 4
    once, again = (take_pictures(problem, board, reference, ends).made[at] for ends in ({case: end}, {}))
    assert once.shape == (8, 1, 8, 8)
    torch.testing.assert_close(once, again, rtol=0, atol=1e-10)


def test_the_board_marks_what_is_as_near_as_exact_samples():
    """In law every row up to the upper end of exact samples is marked, even the second best, and no other."""
    found = [row(value=0.105), row("sa-2", value=0.109), row("ddim", value=0.12), row(nfe=5, value=0.2)]
    board = Board.of(found, "mmd")
    assert board.good() == {(Line("ddpm"), 10), (Line("sa-2"), 10)}
    assert board.exact == pytest.approx((0.1, 0.09, 0.11))


def test_the_table_fits_80_columns():
    """The table and legend in law, of every solver at the default budgets, are at most 80 columns wide."""
    found = [row(name, nfe, 1.2e-9) for name in logsnr.solver_names() for nfe in NFES]
    board, console = Board.of(found, "sliced_w2"), Console(file=StringIO(), width=200)
    console.print(terminal_table(board))
    console.print(legend(board))
    assert max(len(line.rstrip()) for line in console.file.getvalue().splitlines()) <= 80
    assert error_plot(board).startswith("<svg")


def test_the_page_shows_laws_and_digits(tmp_path):
    """A stochastic solver alone has a section with plot, sampling error and pictures."""
    bench(tmp_path, Plan(solvers=("er-sde-2",), nfes=(3, 5), samples=9), "digits")
    page = (tmp_path / "index.html").read_text()
    assert "digits, in law" in page
    assert "They are compared with 299 held-out real digits" in page
    assert re.search(r"Marked: as near as exact samples: \S+e-\d, 90 % from \S+e-\d to \S+e-\d\.", page)
    assert page.count('src="data:image/') == 2 * 2  # the answer and the solver at each budget
    assert "<b>real</b>" in page
    assert "The same by energy distance" in page


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (
            Plan(solvers=("seeds-3", "edm-churn"), nfes=(1,)),
            "there is nothing to measure: no row of seeds-3 at 1: it needs at least 3",
        ),
        (Plan(solvers=("sde-dpmpp2m",)), "did you mean 'sde-dpmpp-2m'"),
        (Plan(solvers=("all", "ddpm")), "leaves none to be named"),
        (Plan(seed=-1), "seed = -1 must be from 0 to 2^64 - 1"),
    ],
)
def test_impossible_plans_are_refused(plan, said):
    """What cannot be measured is a ValueError that says what could be."""
    with pytest.raises(ValueError, match=re.escape(said)):
        check_plan(plan) or cases(load_problem("gaussian"), plan)
