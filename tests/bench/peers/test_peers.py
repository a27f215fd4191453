"""The comparison with peers: what is counted, where grids lie, what is kept, and that peers solve the equation."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from logsnr.bench.peers import accuracy, samplers, time
from logsnr.bench.peers.accuracy import PEER_GRIDS, cases, measure, sigmas
from logsnr.bench.peers.report import MARK, best_of, ratios, write_page
from logsnr.bench.peers.samplers import PACKAGES, Sampler, largest_within, missing
from logsnr.bench.problems import BenchProblem, load_problem
from logsnr.bench.references import Reference, load_reference
from logsnr.bench.results import OURS, Case, Results, Row
from logsnr.bench.work_precision import Counted

MEAN, VARIANCE, FIRST, LAST = 0.7, 0.25, 14.6, 0.03


def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Of Gaussian data."""
    level = sigma.square().reshape(-1, *[1] * (x.ndim - 1))
    return (VARIANCE * x + level * MEAN) / (VARIANCE + level)


def euler(model: samplers.Model, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """A sampler that asks twice for what it needs once."""
    for s, t in pairwise(sigmas):
        x0 = model(torch.cat([x, x]), s)[: len(x)]
        x = x0 + t / s * (x - x0)
    return x


TWICE = Sampler("nobody", "euler", euler)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchProblem, Reference]:
    """Of the mixture on the line."""
    problem = load_problem("mixture")
    return problem, load_reference(problem, "path", 1000, 0, tmp_path_factory.mktemp("ends"))


def case_of(package: str, solver: str, nfe: int, grid: str = "logsnr") -> Case:
    return Case("mixture", solver, "ramp", grid, nfe, None, 1000, 0, package=package)


def row(package: str, solver: str, nfe: int, median: float) -> Row:
    found = {"median": median, "rms": 2 * median, "p90": 2 * median, "far": 0.0, "reference_error": 1e-12}
    return Row(case_of(package, solver, nfe), nfe, found, "1")


def test_two_samples_in_one_call_are_two() -> None:
    """A budget counts evaluations a sample, not calls."""
    assert largest_within(TWICE, 10) == 5
    assert largest_within(TWICE, 1) is None
    counted = Counted(denoise)
    TWICE(counted, torch.ones(3, 2, dtype=torch.float64), torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64))
    assert counted.samples == 3 * 2 * 2


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("package", PACKAGES)
def test_peers_solve_the_equation(package: str) -> None:
    """Every sampler ends where the flow of Gaussian data does, and nearer with four times the evaluations."""
    if reason := missing(package):
        pytest.skip(reason)
    x = FIRST * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = MEAN + (x - MEAN) * ((VARIANCE + LAST**2) / (VARIANCE + FIRST**2)) ** 0.5
    for sampler in PACKAGES[package]():
        errors = []
        for nfe in (8, 24):
            steps = largest_within(sampler, nfe)
            assert steps
            grid = torch.from_numpy(np.geomspace(FIRST, LAST, steps + 1))
            counted = Counted(denoise)
            errors.append(float((sampler(counted, x, grid) - exact).abs().max()))
            assert counted.samples <= nfe * len(x)
        assert errors[1] < min(0.5 * errors[0], 0.15), (sampler.name, errors)


def test_grids_of_peers(task: tuple[BenchProblem, Reference]) -> None:
    """They have the ends of the problem, fall, and are uniform in what they should be."""
    sch = task[0].denoiser.schedule
    for kind in PEER_GRIDS:
        levels = sigmas(sch, kind, 10)
        assert (np.diff(levels) < 0).all()
        np.testing.assert_allclose(levels[[0, -1]], np.exp([-sch.half_logsnr(t) for t in (sch.t_start, sch.t_end)]))
    times = np.asarray(sch.time(-np.log(sigmas(sch, "vp", 10))))
    np.testing.assert_allclose(np.diff(times), np.diff(times)[0], rtol=1e-8)


def test_a_peer_and_ours_agree(task: tuple[BenchProblem, Reference]) -> None:
    """Euler in the coordinates x / alpha, called twice a step, is this library's DDIM with half the evaluations."""
    problem, reference = task
    found = cases(problem, OURS, (5,), (), 0)
    case, method = next(entry for entry in found if (entry[0].solver, entry[0].grid) == ("ddim", "logsnr"))
    ddim = measure(problem, case, reference, method)
    other = accuracy._measure_peer(problem, case_of("nobody", "euler", 10, "exponential"), reference, TWICE)
    assert other
    assert ddim
    assert (other.nfe_used, ddim.nfe_used) == (10, 5)
    np.testing.assert_allclose(other.statistics["median"], ddim.statistics["median"], rtol=1e-9)


def test_what_diverges_is_infinitely_far(task: tuple[BenchProblem, Reference]) -> None:
    """And so are all its samples."""
    wild = Sampler("nobody", "wild", lambda model, x, sigmas: model(x, sigmas[0]) * float("nan"))
    found = accuracy._measure_peer(task[0], case_of("nobody", "wild", 4, "vp"), task[1], wild)
    assert found
    assert [found.statistics[name] for name in ("median", "rms", "far")] == [np.inf, np.inf, 1.0]


def test_rows_are_kept(tmp_path: Path) -> None:
    """A second run finds what the first one wrote of this version, and passes over a torn line."""
    path = tmp_path / "peers.csv"
    rows = Results(path, version=lambda package: "1")
    first, second = row(OURS, "ddim", 5, 0.25), row("azula", "DDIM, twice", 5, 0.5)
    rows.add(first)
    rows.add(second)
    with path.open("a") as file:
        file.write("mixture,azula,1")
    again = Results(path, version={OURS: "2", "azula": "1"}.__getitem__)
    assert [again.get(each.case) for each in (first, second)] == [None, second]


def test_ratios_and_page(tmp_path: Path) -> None:
    """The best of each side; what stands above the mark in a page stays."""
    rows = [row(OURS, "a", 5, 0.2), row(OURS, "b", 5, 0.1), row(OURS, "auto", 5, 0.05), row("azula", "c", 5, 0.1)]
    rows.append(row("diffusers", "d", 5, 0.2))
    assert dict(ratios(rows)) == {"auto": {5: 0.5}, "best named": {5: 1.0}}
    assert best_of(rows)[5].case.solver == "c"
    page = tmp_path / "page.md"
    page.write_text(f"# Peers\n{MARK}\nold")
    write_page(page, {"mixture": rows}, (5, 10))
    text = page.read_text()
    assert text.startswith("# Peers\n")
    assert "old" not in text
    assert "| mixture | auto | 0.50 |  |" in text


def test_a_package_that_is_not_there() -> None:
    """Is left out with its reason."""
    assert missing("no-such-library")
    assert accuracy.version_of(OURS)


def test_a_step_takes_time() -> None:
    """Of a free model; a library that is not there is named with its reason."""
    assert time.per_step(time.SCHEMES["ddim"]["logsnr"], time.SMALL, 3) > 0
    for scheme, loops in time.SCHEMES.items():
        for package, make in loops.items():
            if missing(package) is None:
                assert time.per_step(make, time.SMALL, 3) > 0, (scheme, package)
