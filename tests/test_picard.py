"""Parallel in time: tolerance 0 is the sequential answer, any tolerance ends near it, and what is refused."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers import picard_window
from logsnr.solvers.lower import lower
from logsnr.solvers.picard import picard
from logsnr.solvers.run import run

SCH = logsnr.VPLinear()
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
SOLVERS = ["ddim", "dpmpp-2m", "dpmpp-3s", "deis-3", "heun", "ddpm", "sde-dpmpp-2m", "edm-churn"]


def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Nonlinear, Lipschitz, and of operations that IEEE 754 rounds correctly: the same bits in any batch."""
    return x / (1 + x * x) - 0.3 * t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def start(samples: int = 3, size: int = 50, dtype: torch.dtype = F32) -> torch.Tensor:
    return torch.randn(samples, size, generator=torch.Generator().manual_seed(1), dtype=F64).to(dtype)


def exact(**options: Any) -> logsnr.Picard:
    return logsnr.Picard(tol=0.0, **options)


@pytest.mark.parametrize("window", [None, 5, 1])
@pytest.mark.parametrize("head", ["eps", "x0", "v"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_tolerance_0_is_the_sequential_answer(solver: str, head: str, window: int | None) -> None:
    """At tolerance 0 the end and the whole trajectory have the bits of the sequential run, in no more rounds than
    calls, and the certificate says so; a window of 1 makes the same calls one by one."""
    den, x = logsnr.Denoiser(model, SCH, head), start()
    given: dict[str, Any] = {"solver": solver, "steps": 9, "seed": 4, "trajectory": True}
    wanted = logsnr.solve(den, x, **given)
    for accelerate in ("secant", None):
        found = logsnr.solve(den, x, parallel=exact(window=window, accelerate=accelerate), **given)
        assert torch.equal(found.x, wanted.x)
        assert found.trajectory is not None
        assert wanted.trajectory is not None
        assert torch.equal(found.trajectory, wanted.trajectory)
        assert found.rounds <= wanted.nfe
        assert found.certificate is not None
        assert not found.certificate.distance.any()
        assert not found.certificate.change.any()
        assert window != 1 or found.nfe == found.rounds == wanted.nfe


def test_a_mutant_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that moves on one call too far is seen."""
    den, x = logsnr.Denoiser(model, SCH, "eps"), start()
    wanted = logsnr.sample(den, x, steps=9)
    monkeypatch.setattr(picard_window, "leading", lambda flags: min(int(np.argmin([*flags, False])) + 1, len(flags)))
    assert not torch.equal(logsnr.sample(den, x, steps=9, parallel=exact()), wanted)


@pytest.mark.parametrize("kind", [F64, F16, BF16])
def test_dtypes(kind: torch.dtype) -> None:
    """The state stays as wide as in the sequential run while the model sees its own dtype: the same bits."""
    x = start(dtype=F32 if kind is BF16 else kind)
    den = logsnr.Denoiser(model, SCH, "eps", dtype=kind)
    for solver in ("dpmpp-2m", "sde-dpmpp-2m"):
        wanted = logsnr.sample(den, x, solver=solver, steps=8, seed=0)
        found = logsnr.sample(den, x, solver=solver, steps=8, seed=0, parallel=exact(window=6))
        assert found.dtype is x.dtype
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("parallel", [logsnr.Picard(tol=1e-2), logsnr.Picard(window=7, tol=1e-3, batch=5)])
def test_a_sample_does_not_depend_on_its_batch(parallel: logsnr.Picard) -> None:
    """A sample has the same bits and certificate alone as in a batch whose samples move on at different paces,
    and however a round is split into calls."""
    den = logsnr.Denoiser(model, SCH, "v")
    x = start(4) * torch.tensor([0.1, 1.0, 5.0, 30.0])[:, None]
    given: dict[str, Any] = {"solver": "sde-dpmpp-2m", "steps": 20}
    whole = logsnr.solve(den, x, seed=[1, 2, 3, 4], parallel=parallel, **given)
    whole_certificate = whole.certificate
    assert whole_certificate is not None
    assert len({*zip(whole_certificate.rounds.tolist(), whole_certificate.nfe.tolist(), strict=True)}) > 1
    assert whole.rounds == whole_certificate.rounds.max()
    assert whole.nfe == whole_certificate.nfe.max()
    for b in range(4):
        alone = logsnr.solve(
            den, x[b : b + 1], seed=[b + 1], parallel=dataclasses.replace(parallel, batch=None), **given
        )
        assert torch.equal(alone.x[0], whole.x[b])
        assert alone.certificate is not None
        for name in ("change", "distance", "rounds", "nfe"):
            assert torch.equal(getattr(alone.certificate, name)[..., 0], getattr(whole_certificate, name)[..., b])


def test_rounds_and_evaluations_are_counted() -> None:
    """A round is one call of the model, or several of at most ``batch`` nodes; nfe are the nodes that it was given."""
    sizes: list[int] = []

    def counting(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (len(x),)
        sizes.append(len(x))
        return model(x, t)

    den, x = logsnr.Denoiser(counting, SCH, "eps"), start(1)
    found = logsnr.solve(den, x, steps=20, parallel=logsnr.Picard(window=6))
    assert found.rounds == len(sizes)
    assert found.nfe == sum(sizes)
    assert max(sizes) == 6
    sizes.clear()
    again = logsnr.solve(den, x, steps=20, parallel=logsnr.Picard(window=6, batch=4))
    assert torch.equal(again.x, found.x)
    assert again.rounds == found.rounds
    assert again.nfe == sum(sizes) == found.nfe
    assert max(sizes) == 4


@pytest.mark.parametrize("brownian", [False, True])
def test_noise_is_that_of_the_sequential_run(brownian: bool) -> None:
    """Seeds, Brownian paths and functions give a parallel run the noise of the sequential one; other noise is seen."""
    den, x = logsnr.Denoiser(model, SCH, "eps"), start()
    given: dict[str, Any] = {"solver": "sde-dpmpp-2m", "steps": 8}
    noisy = {"seed": 3, "brownian": brownian}
    wanted = logsnr.sample(den, x, **given, **noisy)
    assert torch.equal(logsnr.sample(den, x, **given, **noisy, parallel=exact()), wanted)
    assert not torch.equal(logsnr.sample(den, x, **given, seed=4, parallel=exact()), wanted)
    asked: list[Any] = []

    def noise(key: Any, like: torch.Tensor) -> torch.Tensor:
        asked.append((key, like.shape, like.dtype))
        return torch.full_like(like, math.sin(100 * key.t))

    wanted = logsnr.sample(den, x, **given, noise=noise)
    sequential, asked = asked, []
    assert torch.equal(logsnr.sample(den, x, **given, noise=noise, parallel=exact(window=3)), wanted)
    assert asked == sequential


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
    monkeypatch.setattr(picard_window.Window, "_slopes", lambda self, seen, outputs: seen.new_zeros(len(seen), 1))
    assert logsnr.solve(problem.denoiser(SCH, "x0"), x, **given).rounds == rounds
    assert logsnr.solve(problem.denoiser(SCH, "eps"), x, **given).rounds > rounds + 3


@pytest.mark.parametrize("accelerate", ["secant", None])
def test_the_bound_of_the_certificate(accelerate: Any) -> None:
    """What every call is carried out with is the model's answer for what it sees up to (L + |slope|) change; half of
    that is too little for some call."""
    program = logsnr.solver("dpmpp-2m").program(SCH, logsnr.grid(SCH, 12))
    lowered = lower(program, SCH, "x0", state=F64, model=F64)
    x, seen = start(3, 50, F64), list[torch.Tensor]()

    def contraction(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)  # L = 1

    found = picard(
        lowered, logsnr.Denoiser(contraction, SCH, "x0"), x, logsnr.Picard(tol=0.05, accelerate=accelerate), keep=True
    )
    rows = iter(found.outputs[0])

    def recorded(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return next(rows)

    end, _ = run(lowered, logsnr.Denoiser(recorded, SCH, "x0"), x)
    assert torch.equal(end, found.x)
    alpha = torch.as_tensor(SCH.alpha(np.array(lowered.times)))[:, None]
    slope = 1 / alpha if accelerate else 0 * alpha  # at most
    states = torch.stack(seen)
    gap, moved = (torch.sin(states) - found.outputs[0]).norm(dim=2), found.certificate.change * states.norm(dim=2)
    assert (gap <= (1 + slope) * moved * (1 + 1e-9) + 1e-14).all()
    assert (gap > moved / 10).any()


def test_an_observer_sees_the_accepted_states() -> None:
    """Callback and trajectory are those of the run that ended at x, node by node, once each."""
    den, x = logsnr.Denoiser(model, SCH, "eps"), start()
    seen: list[tuple[int, float]] = []
    found = logsnr.solve(
        den, x, solver="dpmpp-3s", steps=7, trajectory=True, callback=lambda n, t, y: seen.append((n, t)),
        parallel=logsnr.Picard(window=9),
    )  # fmt: skip
    assert [n for n, _ in seen] == [*range(1, 8)]
    assert found.trajectory is not None
    assert torch.equal(found.trajectory[0], x)
    assert torch.equal(found.trajectory[-1], found.x)


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


def test_models_that_use_their_memory_again() -> None:
    """A model may change what it is given, return the same tensor every time, in any layout."""
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    buffer = torch.zeros(8, 3, 4, 5).to(memory_format=torch.channels_last)

    def reusing(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        buffer[: len(x)] = model(x, t)
        x.fill_(torch.nan)
        t.fill_(torch.nan)
        return buffer[: len(x)]

    wanted = logsnr.sample(logsnr.Denoiser(model, SCH), x, steps=6)
    assert torch.equal(logsnr.sample(logsnr.Denoiser(reusing, SCH), x, steps=6, parallel=exact(batch=8)), wanted)


def test_an_empty_batch() -> None:
    """No samples take no rounds."""
    found = logsnr.solve(logsnr.Denoiser(model, SCH), start(0), steps=5, parallel=logsnr.Picard())
    assert found.x.shape == (0, 50)
    assert found.rounds == found.nfe == 0


BAD: list[tuple[str, dict[str, Any]]] = [
    ("window = 0 must be an integer of at least 1", {"window": 0}),
    ("window = 2.5 must be an integer", {"window": 2.5}),
    ("window = True must be an integer", {"window": True}),
    ("batch = 0 must be an integer of at least 1", {"batch": 0}),
    ("tol = -1e-09 must be a number from 0 to 1", {"tol": -1e-9}),
    ("tol = nan must be", {"tol": math.nan}),
    ("tol = '0' must be", {"tol": "0"}),
    ("ranks = 2 must be True or False", {"ranks": 2}),
    ("accelerate = 'fast' must be 'secant' or None", {"accelerate": "fast"}),
]


@pytest.mark.parametrize(("message", "given"), BAD, ids=[message for message, _ in BAD])
def test_bad_settings(message: str, given: dict[str, Any]) -> None:
    """A setting that makes no sense is refused by name and value."""
    with pytest.raises(ValueError, match=message):
        logsnr.Picard(**given)


def test_what_cannot_run_in_parallel() -> None:
    """Adaptive solvers, gradients, coefficients by element and what is no Picard are refused before any work."""
    den = logsnr.Denoiser(lambda x, t: 1 / 0, SCH)
    with pytest.raises(ValueError, match=r"parallel = Picard.* does not go with an adaptive run"):
        logsnr.sample(den, start(), solver="bosh3", parallel=logsnr.Picard())
    with pytest.raises(TypeError, match=r"parallel must be a logsnr.Picard, not int"):
        logsnr.sample(den, start(), steps=3, parallel=7)
    with pytest.raises(ValueError, match="ranks = True needs ranks"):
        logsnr.sample(den, start(), steps=3, parallel=logsnr.Picard(ranks=True))
    with pytest.raises(ValueError, match="record no gradients"):
        logsnr.sample(den, start().requires_grad_(), steps=3, parallel=logsnr.Picard())
    program = logsnr.solver("ddim").program(SCH, logsnr.grid(SCH, 3))
    calls = [dataclasses.replace(c, matrix=c.matrix[..., None] * [1.0, 1.01]) for c in program]
    by_element = logsnr.Program("by element", 1, program.grid, tuple(calls))
    with pytest.raises(ValueError, match="calls must have scalar coefficients; call 0 has a table"):
        picard(lower(by_element, SCH, "eps", state=F32, model=F32), den, start(3, 2), logsnr.Picard())
