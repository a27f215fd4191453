"""Embedded pairs: what is refused, and what a run says that cannot go on."""

from typing import Any

import pytest
import torch

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.solvers.adaptive import control
from logsnr.solvers.planners.pairs import Pair

PAIRS = [name for name in logsnr.solver_names() if isinstance(logsnr.solver(name).adaptive, Pair)]
F64 = torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 5}, "steps = 5 does not go with an adaptive run of adams-23: leave it out, or take a solver"),
        ({"nfe": 5}, "nfe = 5 does not go with"),
        ({"parallel": logsnr.Picard(), "rtol": 1e-3}, r"adams-23: leave it out, or take a solver with fixed steps$"),
        ({"grid": "time"}, "grid = 'time' does not go with"),
        ({"parallel": logsnr.Picard()}, "parallel = Picard.* does not go with"),
        ({"callback": lambda n, t, x, x0: None}, "no x0 estimate for a callback; let it take"),
        ({"rtol": 0.0}, "rtol must be positive, not 0.0"),
        ({"atol": float("inf")}, "atol must be positive, not inf"),
        ({"rtol": True}, "rtol must be positive, not True"),
        ({"rtol": 1e-9}, "rtol = 1e-09 is below the precision of the state, 1.2e-07 in torch.float32"),
        ({"grid": [1.0, 0.5, 0.5]}, "duplicate"),
        ({"t_end": -1.0}, "outside"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_call(options: dict[str, Any], message: str) -> None:
    den = logsnr.Denoiser(lambda x, t: 1 / 0, logsnr.VPLinear())
    with pytest.raises(ValueError, match=message):
        logsnr.solve(den, torch.ones(2, 3), solver="adams-23", **options)


@pytest.mark.parametrize(
    ("sch", "prediction", "t"),
    [(logsnr.FlowMatching(), "eps", 1), (logsnr.FlowMatching(), "score", 1), (logsnr.VPCosine(), "eps", 1)],
)
def test_heads_that_say_nothing_at_the_start_are_refused(sch: logsnr.Schedule, prediction: str, t: float) -> None:
    den = logsnr.Denoiser(lambda x, t: 1 / 0, sch, prediction)
    with pytest.raises(ValueError, match=f"{prediction!r} does not determine the step from t = {t}, where alpha = 0"):
        logsnr.solve(den, torch.ones(2, 3), solver="dpm-23")
    with pytest.raises(ZeroDivisionError):
        logsnr.solve(den, torch.ones(2, 3), solver="dpm-23", t_start=0.9)


def test_what_cannot_be_met_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what has been reached: too many steps, and steps that shrink to nothing at a jump of the model."""
    sch = logsnr.VPLinear()
    monkeypatch.setattr(control, "MOST", 20)
    told = r"dpm-12 cannot meet rtol = 1e-06, atol = 0.001, in samples 0, 1 of 2: after 20 steps, sample 0 stands"
    with pytest.raises(RuntimeError, match=told):
        logsnr.solve(Gaussian(0.7, 0.25).denoiser(sch), torch.ones(2, dtype=F64), solver="dpm-12", rtol=1e-6, atol=1e-3)
    monkeypatch.undo()

    def jump(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where(t < 0.5, 1e6, 0.0).to(x)

    told = r"shrunk to .* in lam, sample 0 stands at t = 0.5, lam = .* the last error was .* tolerances; ask for less"
    with pytest.raises(RuntimeError, match=told):
        logsnr.solve(
            logsnr.Denoiser(jump, sch, "x0"), torch.ones(2, dtype=F64), solver="adams-23", rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", PAIRS)
def test_samples_that_stop_being_finite(name: str) -> None:
    """They are named; kept, the others are what they are alone."""
    sch = logsnr.VPLinear()

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        bad = (t < 0.5) & (x[:, 0] > 100)
        return torch.where(bad[:, None], torch.nan, x.clamp(-3, 3) / (1 + t[:, None] ** 2))

    den, x = logsnr.Denoiser(model, sch, "x0"), logsnr.start(sch, (3, 2), seed=0, dtype=F64)
    x[1, 0] = 1e5
    with pytest.raises(logsnr.NonFiniteError, match=r"non-finite value at call .* in sample 1 of 3") as caught:
        logsnr.solve(den, x, solver=name)
    assert caught.value.samples == (1,)
    with pytest.warns(UserWarning, match="not finite, in sample 1 of 3"):
        kept = logsnr.solve(den, x, solver=name, on_nan="keep")
    assert kept.failed == (1,)
    assert torch.equal(kept.x[[0, 2]], logsnr.sample(den, x[[0, 2]], solver=name))
    with pytest.raises(ValueError, match="x holds infinities"):
        logsnr.solve(den, x * float("inf"), solver=name)


def test_model_errors_name_the_call() -> None:
    den = logsnr.Denoiser(lambda x, t: x[:1], logsnr.VPLinear())
    with pytest.raises(ValueError, match="returned shape") as caught:
        logsnr.solve(den, torch.ones(2, 3), solver="adams-23")
    assert caught.value.__notes__ == ["at call 1, t = 1"]
