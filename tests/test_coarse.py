"""Initial guesses of parallel runs, of cheaper runs and others."""

import math
from typing import Any

import pytest
import torch
from parallel_runs import model

import logsnr
from logsnr.solvers import picard_window

SCH = logsnr.VPLinear()
F64 = torch.float64


def start(samples: int = 3, size: int = 50, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(samples, size, generator=torch.Generator().manual_seed(1), dtype=F64).to(dtype)


@pytest.mark.parametrize("init", ["straight", "constant", logsnr.Coarse("heun", 4)], ids=str)
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "dpmpp-3s", "sde-dpmpp-2m", "edm-churn"])
def test_any_guess_ends_in_the_sequential_answer(solver: str, init: Any) -> None:
    """At tolerance 0 the bits are those of the sequential run, wherever the iteration begins."""
    den, x = logsnr.Denoiser(model, SCH, "v"), start()
    given: dict[str, Any] = {"solver": solver, "steps": 9, "seed": 4}
    wanted = logsnr.sample(den, x, **given)
    for window in (None, 5):
        found = logsnr.solve(den, x, parallel=logsnr.Picard(window, 0.0, init=init), **given)
        assert torch.equal(found.x, wanted)


@pytest.mark.parametrize("sch", [SCH, logsnr.EDM(), logsnr.FlowMatching()], ids=lambda sch: type(sch).__name__)
@pytest.mark.parametrize("back", [False, True])
def test_a_coarse_run_that_is_the_run_itself(sch: logsnr.Schedule, back: bool) -> None:
    """A coarse run of the same solver and steps guesses every node: one sweep confirms it, in either direction; its
    evaluations and rounds are counted, and another solver's guess takes more sweeps."""
    grid = logsnr.grid(sch, 8, t_start=0.9 * sch.t_start, t_end=0.01 * sch.t_start)
    x = start(2, dtype=F64) * float(sch.sigma(grid[-1 if back else 0]))
    calls = [0]

    def counting(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return model(x, t)

    den = logsnr.Denoiser(counting, sch, "v")
    given: dict[str, Any] = {"solver": "ddim", "grid": grid[::-1] if back else grid}
    found = logsnr.solve(den, x, parallel=logsnr.Picard(tol=1e-9, init=logsnr.Coarse("ddim", 8)), **given)
    assert (found.rounds, found.nfe) == (8 + 1, 8 + 8)
    assert calls[0] == found.rounds
    assert found.certificate is not None
    assert found.certificate.rounds.tolist() == [9, 9]
    torch.testing.assert_close(found.x, logsnr.sample(den, x, **given), rtol=1e-9, atol=1e-9)
    other = logsnr.solve(den, x, parallel=logsnr.Picard(tol=1e-9, init=logsnr.Coarse("heun", 8)), **given)
    assert other.rounds > 16 + 1


def test_better_guesses_take_fewer_sweeps() -> None:
    """On a mixture the line takes no more sweeps than the state that stays, and ten steps of a coarse run fewer than
    the line, its own steps left out."""
    problem = logsnr.analysis.GaussianMixture(means=[-1.5, 0.2, 1.0], covs=[0.04, 0.01, 0.02], weights=[0.3, 0.2, 0.5])
    den, x = problem.denoiser(SCH, "v"), start(4, 1, F64)
    given: dict[str, Any] = {"solver": "ddim", "steps": 100}
    constant, line, coarse = (
        logsnr.solve(den, x, parallel=logsnr.Picard(init=init), **given).rounds  # type: ignore[arg-type]
        for init in ("constant", "straight", logsnr.Coarse(steps=20))
    )
    assert coarse - 20 < line <= constant


def test_noise_goes_into_the_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one data point x0 is known to a coarse step of any kind: with the noise the guess is the run itself, which
    one sweep confirms; without it, it is not."""
    den, x = logsnr.analysis.Gaussian(torch.full((6,), 0.7, dtype=F64), 1e-30).denoiser(SCH, "x0"), start(2, 6, F64)
    parallel = logsnr.Picard(tol=1e-9, init=logsnr.Coarse("ddim", 1), accelerate=None)
    guessed = picard_window.Window._guessed

    def silent(self: Any, known: int, last: torch.Tensor, noises: Any) -> torch.Tensor:
        return guessed(self, known, last, [])

    for solver in ("ddpm", "sde-dpmpp-2m"):
        given: dict[str, Any] = {"solver": solver, "steps": 20, "seed": 0, "parallel": parallel}
        assert logsnr.solve(den, x, **given).rounds == 1 + 1
        with monkeypatch.context() as patch:
            patch.setattr(picard_window.Window, "_guessed", silent)
            assert logsnr.solve(den, x, **given).rounds > 1 + 1


BAD: list[tuple[str, Any]] = [
    ("takes fixed steps; bosh3 is adaptive", lambda: logsnr.Coarse("bosh3")),
    ("adds no noise; ddpm is stochastic", lambda: logsnr.Coarse("ddpm")),
    ("'dpmp-2m' is unknown; did you mean 'dpmpp-2m'", lambda: logsnr.Coarse("dpmp-2m")),
    ("steps = 0 must be an integer of at least 1", lambda: logsnr.Coarse(steps=0)),
    ("init = 'line' must be 'straight', 'constant' or a logsnr.Coarse", lambda: logsnr.Picard(init="line")),  # type: ignore[arg-type]
    (
        "steps of the coarse run = 10 must be at most the number of steps, 9",
        lambda: logsnr.sample(
            logsnr.Denoiser(model, SCH), start(), steps=9, parallel=logsnr.Picard(init=logsnr.Coarse())
        ),
    ),
]


@pytest.mark.parametrize(("message", "mistake"), BAD, ids=[message for message, _ in BAD])
def test_bad_settings(message: str, mistake: Any) -> None:
    """What makes no sense is refused, and says why."""
    with pytest.raises(ValueError, match=message):
        mistake()


def test_a_coarse_run_that_breaks_down() -> None:
    """A model that returns an infinity in the coarse run is reported with the time."""
    den = logsnr.Denoiser(lambda x, t: torch.where((t < 0.5)[:, None], math.inf, model(x, t)), SCH, "eps")
    with pytest.raises(logsnr.NonFiniteError, match=r"of 4, t = 0\.[1-4]"):
        logsnr.sample(den, start(), steps=20, parallel=logsnr.Picard(init=logsnr.Coarse(steps=4)))
