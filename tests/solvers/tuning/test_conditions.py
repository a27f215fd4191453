"""`tune` of a denoiser with conditions: their rows follow the samples into parts of the fit, and what stops it."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture

SCH = logsnr.VPLinear()
DATA = GaussianMixture([[-1.0, 0.3], [0.8, -0.6]], [[0.04, 0.09], [0.02, 0.05]], [0.4, 0.6]).denoiser(SCH)
X = logsnr.start(SCH, (64, 2), seed=0, dtype=torch.float64)
Y = torch.linspace(-2, 2, 64, dtype=torch.float64)
SCALE = 1 + Y.abs()


def moved(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x0 of the data moved by y."""
    return y[:, None] + DATA.model(x - SCH.alpha(t)[:, None] * y[:, None], t)


def conditioned(guided: bool) -> logsnr.Denoiser:
    guidance = logsnr.Guidance(SCALE, uncond={"y": torch.zeros_like(Y)}) if guided else None
    return logsnr.Denoiser(moved, SCH, "x0", conditions={"y": Y}, guidance=guidance)


@pytest.mark.parametrize("guided", [False, True], ids=["conditions", "guidance"])
def test_rows_follow_their_samples(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fit says of the held-out noise is what a run has there, and a fit in parts is the whole."""
    den = conditioned(guided)
    exact = logsnr.sample(den, X, solver="dpmpp-3m", steps=60)
    monkeypatch.setattr("logsnr.solvers.tuning.job.has_gradients", lambda *_: False)  # whose directions are random
    given = {"nfe": 3, "gauge": "x0", "iterations": 1, "reference": exact}
    program = logsnr.tune(den, X, **given)
    miss = (logsnr.sample(den, X, solver=program) - exact).square().mean(1).sqrt()[-16:]
    assert float(miss.median()) == pytest.approx(program.provenance["held-out median"], rel=1e-9)
    monkeypatch.setattr("logsnr.solvers.tuning.derivatives.ELEMENTS", 1 << 12)
    other = logsnr.tune(den, X, **given)
    for one, two in zip(program.calls, other.calls, strict=True):
        np.testing.assert_allclose(one.matrix, two.matrix, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("guided", [False, True], ids=["conditions", "guidance"])
def test_no_call_is_for_more_samples_than_a_batch(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what comes out is what all at once give, the reference too."""
    monkeypatch.setattr("logsnr.solvers.tuning.job.has_gradients", lambda *_: False)
    den, asked = conditioned(guided), list[int]()

    def counted(x: torch.Tensor, t: torch.Tensor, **conditions: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return moved(x, t, **conditions)

    whole, parts = (
        logsnr.tune(den.like(model, X), X, 3, solver="ddim", iterations=2, batch=batch)
        for model, batch in ((moved, None), (counted, 10))
    )
    assert max(asked) == 10 * (1 + guided)
    for one, two in zip(whole.calls, parts.calls, strict=True):
        np.testing.assert_allclose(one.matrix, two.matrix, rtol=1e-5, atol=1e-8)


def test_rows_follow_where_some_noises_are_left_out() -> None:
    den, reference = conditioned(False), logsnr.sample(conditioned(False), X, solver="dpmpp-3m", steps=100)
    rest = logsnr.Denoiser(moved, SCH, "x0", conditions={"y": Y[2:]})
    hollow = torch.where(torch.arange(64)[:, None] < 2, torch.nan, reference)
    found = logsnr.tune(den, X, 2, gauge="x0", iterations=1, reference=hollow)
    with pytest.raises(ValueError, match="62 noises"):
        logsnr.tune(rest, X[2:], 2)
    assert found.provenance["held-out median"] < found.provenance["start's median"]
    assert "46 fitted to, 16 held out" in str(found.provenance["noises"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"conditions": {"y": Y[:3]}}, "has 3 rows for a batch of 64"),
        ({"guidance": logsnr.Guidance(SCALE[:3], uncond={"y": Y})}, "scale has 3 numbers for a batch of 64"),
        (
            {"guidance": logsnr.Guidance(2.0, uncond={"y": Y}, kind="cfg++")},
            "'cfg\\+\\+' takes x0 and eps from different",
        ),
        (
            {"guidance": logsnr.Guidance(2.0, uncond={"y": Y}, kind="apg", options={"momentum": -0.5})},
            "momentum goes from one call of a run to the next",
        ),
    ],
    ids=["conditions", "scale", "cfg++", "momentum"],
)
def test_what_does_not_fit_is_refused_before_the_first_call(change: dict, told: str) -> None:
    def never(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model was called")

    given = {"conditions": {"y": Y}} | change
    with pytest.raises(ValueError, match=told):
        logsnr.tune(logsnr.Denoiser(never, SCH, "x0", **given), X, 3)


def test_a_budget_that_is_stopped_before_its_fit_leaves_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from logsnr.solvers.tuning import job

    calls = []

    def best(*given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return known(*given)  # type: ignore[arg-type]

    known = job.best_of
    monkeypatch.setattr(job, "best_of", best)
    exact = logsnr.sample(DATA, X, solver="dpmpp-3m", steps=100)
    with pytest.warns(UserWarning, match="the fit of 3 evaluations was stopped"):
        found = logsnr.tune(DATA, X, [2, 3], gauge="x0", iterations=1, reference=exact)
    assert list(found) == [2]
    calls[:] = [()]
    with pytest.raises(KeyboardInterrupt):
        logsnr.tune(DATA, X, [2, 3], gauge="x0", iterations=1, reference=exact)
