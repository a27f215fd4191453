"""Transfer functions against closed forms and the executor; rankings against exhaustive search."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.moments import sampler_moments
from logsnr.analysis.transfer import Choice, rank, transfer

SCH = logsnr.VPLinear()
STDS, WEIGHTS = np.geomspace(1e-2, 3.0, 9), np.arange(1, 10)


def test_one_ddim_step() -> None:
    """The gain of one DDIM step is (alpha_s alpha_t c^2 + sigma_s sigma_t) / R_s^2, the flow's R_t / R_s."""
    s, t = 0.7, 0.2
    (a_s, s_s), (a_t, s_t) = ((SCH.alpha(u), SCH.sigma(u)) for u in (s, t))
    found = transfer("ddim", SCH, STDS, grid=[s, t])
    r2_s, r2_t = a_s**2 * STDS**2 + s_s**2, a_t**2 * STDS**2 + s_t**2
    gain, exact = (a_s * a_t * STDS**2 + s_s * s_t) / r2_s, np.sqrt(r2_t / r2_s)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-14)
    np.testing.assert_allclose(found.exact, exact, rtol=1e-14)
    np.testing.assert_allclose(found.error, np.abs(gain / exact - 1), rtol=1e-11)
    np.testing.assert_allclose(found.spread, gain * np.sqrt(r2_s), rtol=1e-14)
    assert found.dtype is None


@pytest.mark.parametrize("name", ["euler", "deis-4", "dpmpp-3s"])
def test_float64_execution_has_the_exact_gain(name: str) -> None:
    """Measured by the executor in float64 the gain and the error are the exact recursion's, to 1e-11."""
    exact = transfer(name, SCH, STDS, steps=6)
    run = transfer(name, SCH, STDS, steps=6, dtype=torch.float64)
    np.testing.assert_allclose(run.gain, exact.gain, rtol=1e-11)
    np.testing.assert_allclose(run.error, exact.error, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_dtypes_add_their_rounding(dtype: torch.dtype) -> None:
    """In a narrow dtype the error exceeds the exact one by its roundings: at most 10 eps, typically over eps / 10."""
    exact = transfer("dpmpp-3s", SCH, STDS, steps=300)
    run = transfer("dpmpp-3s", SCH, STDS, steps=300, dtype=dtype)
    eps = torch.finfo(dtype).eps
    assert (run.error < exact.error + 10 * eps).all()
    assert np.median(run.error) > eps / 10
    assert np.median(exact.error) < 1e-7


def test_programs_with_noise_are_measured_by_their_spread() -> None:
    """For a program that adds noise the error is that of the standard deviation; in a dtype it is refused."""
    s, t = 0.9, 0.3
    rows = np.array([[SCH.alpha(t), 0.0, SCH.sigma(t)]])
    program = logsnr.Program("renoise", 1, (s, t), (logsnr.Call(s, (), (0,), rows, noises=((s, t),), node=1),))
    found = transfer(program, SCH, STDS)
    cov = [sampler_moments(program, Gaussian(0.0, std**2), SCH).cov.item() for std in STDS]
    np.testing.assert_allclose(found.spread, np.sqrt(cov), rtol=1e-14)
    exact = np.hypot(SCH.alpha(t) * STDS, SCH.sigma(t))
    np.testing.assert_allclose(found.error, np.abs(found.spread / exact - 1), rtol=1e-9)
    with pytest.raises(ValueError, match="renoise adds noise; runs in a dtype are for deterministic programs"):
        transfer(program, SCH, STDS, dtype=torch.float32)


def test_plots_are_files(tmp_path: Path) -> None:
    """A transfer function draws itself into the format of the suffix."""
    transfer("ddim", SCH, steps=5).plot(tmp_path / "a.svg")
    transfer("ddim", SCH, STDS, steps=5, dtype=torch.bfloat16).plot(tmp_path / "b.png")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def relative_w2(choice: Choice, sch: logsnr.Schedule, weights: np.ndarray) -> float:
    """The W2 of sampler_moments over the size of the marginal; modes counted by repeating them."""
    variances = np.repeat(STDS**2, weights)
    data = Gaussian(np.zeros_like(variances), variances)
    moments = sampler_moments(choice.solver, data, sch, nfe=choice.nfe, grid=choice.grid, startup=choice.startup)
    assert moments.nfe == choice.nfe
    return moments.w2 / float(data.marginal(sch, moments.program.grid[-1])[1].sum()) ** 0.5


@pytest.fixture(scope="module", autouse=True)
def planned_once() -> Iterator[None]:
    """Most of what is ranked here is laid out for the same schedule and budget."""
    module = sys.modules[rank.__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_planned", cache(module._planned))
        yield


@cache
def ranked(sch: logsnr.Schedule, nfe: int) -> list[Choice]:
    """All choices, of the axes with WEIGHTS."""
    return rank(STDS, sch, weights=WEIGHTS, nfe=nfe)


@pytest.mark.parametrize("sch", [SCH, logsnr.FlowMatching()], ids=repr)
def test_rank_by_budget(sch: logsnr.Schedule) -> None:
    """Choices for 10 evaluations are sorted, within budget, all different, and report the relative W2."""
    choices = ranked(sch, 10)
    assert choices[0].error < 0.1
    assert [c.error for c in choices] == sorted(c.error for c in choices)
    assert all(c.nfe <= 10 for c in choices)
    assert {c.grid for c in choices} == {"logsnr", "karras", "time"}
    assert not {"deis-1", "dpm-1", "dpmpp-1"} & {c.solver for c in choices}
    both = {c.solver for c in choices if c.startup == "single-step"}
    assert {"deis-3", "deis-4", "deis-rho-3", "deis-rho-4", "dpmpp-3m", "dpm-4m"} <= both
    assert all(logsnr.solver(name).order > 2 or name == "ipndm-3" for name in both - {"ipndm-4", "pndm"})
    for choice in [c for c in choices if c.error < 1][::14]:
        assert choice.error == pytest.approx(relative_w2(choice, sch, WEIGHTS), rel=1e-9)


@pytest.mark.parametrize(
    ("solver", "target"), [("ddim", 0.1), ("dpmpp-2m", 1e-2), ("dpmpp-3s", 1e-3), ("heun", 3e-2), ("deis-4", 3e-3)]
)
def test_rank_by_target(solver: str, target: float) -> None:
    """The NFE found for a target reaches it, and no smaller one does: all of them are tried."""
    size = (SCH.alpha(SCH.t_end) * STDS) ** 2 + SCH.sigma(SCH.t_end) ** 2
    choices = rank(STDS, SCH, target=target, solvers=[solver], grids=["logsnr", "karras"])
    assert len(choices) >= 2
    for choice in choices:
        for steps in range(1, 100):
            found = transfer(solver, SCH, STDS, steps=steps, grid=choice.grid, startup=choice.startup)
            error = float(np.sqrt((found.error**2 * size).sum() / size.sum()))
            if len(found.program) == choice.nfe:
                assert error == choice.error <= target
                break
            assert error > target


def test_rank_by_budget_and_target() -> None:
    """With both, only what reaches the target within the budget is left, fewest evaluations first."""
    solvers = ["ddim", "dpmpp-2m", "dpmpp-3s", "heun"]
    everything = rank(STDS, SCH, target=3e-2, solvers=solvers)
    some = rank(STDS, SCH, target=3e-2, nfe=14, solvers=solvers)
    assert some == [c for c in everything if c.nfe <= 14]
    assert 0 < len(some) < len(everything)
    assert [c.nfe for c in some] == sorted(c.nfe for c in some)
    assert rank(STDS, SCH, target=1e-9, nfe=14, solvers=solvers) == []


TARGETS = [pytest.param(q, marks=pytest.mark.slow) for q in ({"target": 0.05}, {"target": 0.05, "nfe": 12})]


@pytest.mark.parametrize("question", [{"nfe": 10}, *TARGETS], ids=repr)
def test_the_best_are_the_first_of_all(question: dict[str, float]) -> None:
    """best=5 gives the first five of the whole list, though it searches for less."""
    given = {"weights": WEIGHTS, **question}
    everything = ranked(SCH, 10) if question == {"nfe": 10} else rank(STDS, SCH, **given)  # type: ignore[arg-type]
    assert len(everything) > 5
    assert rank(STDS, SCH, best=5, **given) == everything[:5]  # type: ignore[arg-type]


def test_more_budget_than_the_default_search() -> None:
    """Without nfe the search ends at 100 evaluations; nfe= extends it."""
    options = {"target": 1e-2, "solvers": ["ddim"], "grids": ["logsnr"]}
    assert rank(STDS, SCH, **options) == []  # type: ignore[arg-type]
    (choice,) = rank(STDS, SCH, nfe=2000, **options)  # type: ignore[arg-type]
    assert 100 < choice.nfe < 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give nfe"),
        ({"target": 0.0}, "target must be positive, not 0.0"),
        ({"nfe": 5, "weights": [1.0]}, "weights must be 9 nonnegative numbers"),
        ({"nfe": 5, "weights": [-1.0] * 9}, "weights must be 9 nonnegative numbers"),
        ({"nfe": 5, "solvers": ["dimm"]}, "did you mean 'ddim'"),
        ({"nfe": 5, "solvers": ["bosh3"]}, "chooses its own steps"),
        ({"nfe": 5, "grids": ["log"]}, "grid = 'log' is neither an array of times nor a known name"),
        ({"nfe": 5, "t_end": 2.0}, "is outside the times"),
        ({"nfe": 5, "best": 0}, "best must be a whole number from 1 to 1000000, not 0"),
        ({"nfe": 0}, "nfe must be a whole number from 1 to 1000000, not 0"),
    ],
)
def test_bad_questions_are_refused(options: dict[str, object], message: str) -> None:
    """A question that makes no sense raises ValueError with the argument's name and value."""
    with pytest.raises(ValueError, match=message):
        rank(STDS, SCH, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stds must be a 1-D array of positive numbers"):
        rank([0.0, 1.0], SCH, nfe=5)
    with pytest.raises(ValueError, match="stds must be finite"):
        transfer("ddim", SCH, [np.nan], steps=2)
