"""One sample's window: how it follows the model, what it accepts, and what it says of the distance."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import exact, model, reusing, start

import logsnr
from logsnr.solvers.parallel import window as windows
from logsnr.solvers.parallel.picard import picard
from logsnr.solvers.programs.lower import lower
from logsnr.solvers.runs.run import run

SCH = logsnr.VPLinear()
F64, F32 = torch.float64, torch.float32


def test_a_mutant_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that moves on one call too far is seen."""
    den, x = logsnr.Denoiser(model, SCH, "eps"), start()
    wanted = logsnr.sample(den, x, steps=9)
    monkeypatch.setattr(windows, "leading", lambda flags: min(int(np.argmin([*flags, False])) + 1, len(flags)))
    assert not torch.equal(logsnr.sample(den, x, steps=9, parallel=exact()), wanted)


def test_secants_solve_linear_models_at_once() -> None:
    """For Gaussian data of one variance the denoiser is a multiple of x, which two sweeps show exactly: the third is
    right for any number of steps, where frozen x0 takes more."""
    gaussian = logsnr.analysis.Gaussian(torch.zeros(16, dtype=F64), 0.3)
    x = start(2, 16, F64)
    for head in ("x0", "eps", "v", "velocity", "score"):
        den = gaussian.denoiser(SCH, head)
        for steps in (30, 200):
            wanted = logsnr.sample(den, x, solver="ddim", steps=steps)
            found = logsnr.solve(den, x, solver="ddim", steps=steps, parallel=logsnr.Picard(tol=1e-8))
            frozen = logsnr.solve(den, x, solver="ddim", steps=steps, parallel=logsnr.Picard(tol=1e-8, accelerate=None))
            torch.testing.assert_close(found.x, wanted, rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(frozen.x, wanted, rtol=1e-6, atol=1e-8)
            assert found.rounds <= 4 < 8 < frozen.rounds


def test_the_head_does_not_matter() -> None:
    """Whatever the network predicts, x0 is what is frozen: all heads take the same rounds."""
    problem = logsnr.analysis.GaussianMixture(means=[-1.5, 0.2, 1.0], covs=[0.04, 0.01, 0.02], weights=[0.3, 0.2, 0.5])
    x, parallel = start(4, 1, F64), logsnr.Picard(tol=1e-4)
    rounds = []
    for head in ("x0", "eps", "v", "velocity", "score"):
        found = logsnr.solve(problem.denoiser(SCH, head), x, solver="deis-3", steps=60, parallel=parallel).certificate
        assert found is not None
        rounds.append(found.rounds.tolist())
    assert rounds == [rounds[0]] * 5


def test_frozen_heads_take_other_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen as it is, without the slopes that freeze x0, the head eps takes more sweeps."""
    problem = logsnr.analysis.Gaussian(torch.zeros(8, dtype=F64), 0.01)
    given: dict[str, Any] = {"solver": "ddim", "steps": 60, "parallel": logsnr.Picard(tol=1e-4, accelerate=None)}
    x = start(1, 8, F64)
    rounds = logsnr.solve(problem.denoiser(SCH, "eps"), x, **given).rounds

    def frozen(self: Any, outputs: Any) -> np.ndarray:
        return np.zeros(len(outputs[0]))

    monkeypatch.setattr(windows.PicardWindow, "_slopes", frozen)
    assert logsnr.solve(problem.denoiser(SCH, "x0"), x, **given).rounds == rounds
    assert logsnr.solve(problem.denoiser(SCH, "eps"), x, **given).rounds > rounds + 3


@pytest.mark.parametrize("accelerate", ["secant", None])
def test_the_bound_of_the_certificate(accelerate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every call is carried out with is the model's answer for what it sees up to (L + |slope|) change; half of
    that is too little for some call."""
    program = logsnr.solver("dpmpp-2m").program(SCH, logsnr.grid(SCH, 12))
    lowered = lower(program, SCH, "x0", state=F64, model=F64)
    x, seen = start(3, 50, F64), list[torch.Tensor]()

    def contraction(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)  # L = 1

    den = logsnr.Denoiser(contraction, SCH, "x0")
    kept: list[torch.Tensor] = []
    monkeypatch.setattr("logsnr.solvers.parallel.picard._replay", lambda *given: kept.extend(given[3]))
    found = picard(lowered, den, x, logsnr.Picard(tol=0.05, accelerate=accelerate), observe=print)
    (outputs,) = kept
    rows = iter(outputs)

    def recorded(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return next(rows)

    end, _ = run(lowered, logsnr.Denoiser(recorded, SCH, "x0"), x)
    assert torch.equal(end, found.x)
    alpha = torch.as_tensor(SCH.alpha(np.array(lowered.times)))[:, None]
    slope = 1 / alpha if accelerate else 0 * alpha  # at most
    states = torch.stack(seen)
    gap, moved = (torch.sin(states) - outputs).norm(dim=2), found.certificate.change * states.norm(dim=2)
    assert (gap <= (1 + slope) * moved * (1 + 1e-9) + 1e-14).all()
    assert (gap > moved / 10).any()


def test_non_finite_answers() -> None:
    """A model that breaks down at a time is reported with the call and time of the sequential run; one that breaks down
    only far from the trajectory is asked again, and what it said is not used."""

    def breaks(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where((t < 0.5)[:, None], torch.nan, model(x, t))

    x = start()
    den = logsnr.Denoiser(breaks, SCH, "eps")
    with pytest.raises(logsnr.NonFiniteError) as wanted:
        logsnr.sample(den, x, steps=10)
    for window in (None, 3):
        with pytest.raises(logsnr.NonFiniteError) as found:
            logsnr.sample(den, x, steps=10, parallel=logsnr.Picard(window=window))
        assert (found.value.call, found.value.t) == (wanted.value.call, wanted.value.t)
    with pytest.raises(ValueError, match="x holds infinities or NaNs"):
        logsnr.sample(logsnr.Denoiser(model, SCH), x * math.inf, steps=4, parallel=logsnr.Picard())

    calm = logsnr.Denoiser(model, SCH, "eps")
    states = logsnr.solve(calm, x, solver="ddim", steps=10, trajectory=True).trajectory
    assert states is not None
    right = dict(zip(logsnr.grid(SCH, 10).astype("float32").tolist(), states, strict=True))
    refused = [0]

    def near(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        off = torch.stack(
            [(right[time] - state).abs().amax(1).amin() for time, state in zip(t.tolist(), x, strict=True)]
        )
        refused[0] += int((off > 0.5).sum())
        return torch.where((off > 0.5)[:, None], torch.inf, model(x, t))

    found_x = logsnr.sample(logsnr.Denoiser(near, SCH, "eps"), x, solver="ddim", steps=10, parallel=exact())
    assert torch.equal(found_x, states[-1])
    assert refused[0]


@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_memory_of_the_model_is_not_kept(tol: float) -> None:
    """Answers of a round are compared with those of the next: a model that writes over them changes nothing."""
    x, how = start(), logsnr.Picard(tol=tol, window=4)
    wanted = logsnr.solve(logsnr.Denoiser(model, SCH), x, steps=12, parallel=how)
    found = logsnr.solve(logsnr.Denoiser(reusing(torch.zeros(12, 50)), SCH), x, steps=12, parallel=how)
    assert torch.equal(found.x, wanted.x)
    assert found.rounds == wanted.rounds
    assert found.certificate is not None
    assert wanted.certificate is not None
    assert torch.equal(found.certificate.change, wanted.certificate.change)


@pytest.mark.parametrize("tol", [1e-3, 1.0])
def test_the_dtype_of_answers_does_not_matter(tol: float) -> None:
    """They are not changed in place, of whatever dtype they are: the same numbers have the same end."""
    x, how = start(dtype=F64), logsnr.Picard(tol=tol, window=4)
    narrow = logsnr.Denoiser(lambda x, t: model(x, t).float(), SCH)
    wide = logsnr.Denoiser(lambda x, t: model(x, t).float().double(), SCH)
    assert torch.equal(*(logsnr.sample(den, x, steps=12, parallel=how) for den in (narrow, wide)))


def test_one_element_that_is_not_finite() -> None:
    """It is enough: the error is that of the sequential run."""

    def breaks(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        answer = model(x, t)
        answer[t < 0.5, 7] = torch.nan
        return answer

    den, x = logsnr.Denoiser(breaks, SCH, "eps"), start()
    with pytest.raises(logsnr.NonFiniteError) as wanted:
        logsnr.sample(den, x, steps=10)
    with pytest.raises(logsnr.NonFiniteError) as found:
        logsnr.sample(den, x, steps=10, parallel=logsnr.Picard())
    assert (found.value.call, found.value.t, found.value.samples) == (wanted.value.call, wanted.value.t, (0, 1, 2))


def test_models_that_use_their_memory_again() -> None:
    """A model may change what it is given, return the same tensor every time, in any layout."""
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    buffer = torch.zeros(8, 3, 4, 5).to(memory_format=torch.channels_last)

    wanted = logsnr.sample(logsnr.Denoiser(model, SCH), x, steps=6)
    assert torch.equal(
        logsnr.sample(logsnr.Denoiser(reusing(buffer), SCH), x, steps=6, parallel=exact(batch=8)), wanted
    )
