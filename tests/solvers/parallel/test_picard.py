"""Parallel in time: tolerance 0 is the sequential answer, any tolerance ends near it, and what is refused."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from parallel_runs import SOLVERS, exact, model, start
from sampled import sampled

import logsnr

SCH = logsnr.VPLinear()
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize(("solver", "head", "window"), sampled(SOLVERS, ["eps", "x0", "v"], [None, 5, 1], every=3))
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


def test_a_model_wider_than_x() -> None:
    """A state of fp64 for a model of fp64, whatever x is: sequential and parallel runs have the same bits."""
    x, wide = start(dtype=F32), logsnr.Denoiser(model, SCH, "eps", dtype=F64)
    for solver in ("dpmpp-2m", "sde-dpmpp-2m"):
        wanted = logsnr.sample(wide, x, solver=solver, steps=8, seed=0)
        assert wanted.dtype is F32
        assert torch.equal(wanted, logsnr.sample(wide, x.double(), solver=solver, steps=8, seed=0).float())
        for parallel in (exact(window=6), exact(init="constant")):
            assert torch.equal(logsnr.sample(wide, x, solver=solver, steps=8, seed=0, parallel=parallel), wanted)


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


def test_samples_that_converge_at_different_speeds() -> None:
    """The noise of the slowest window is kept, also that of a function, which is not asked again."""

    def uneven(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where(x.mean(1, keepdim=True) > 0, torch.sin(5 * x), torch.zeros_like(x))

    x = torch.stack([torch.linspace(1, 2, 9), torch.linspace(-1, -2, 9)])
    given: dict[str, Any] = {"solver": "sde-dpmpp-2m", "steps": 20, "eta": 0.1, "parallel": logsnr.Picard(window=4)}
    den = logsnr.Denoiser(uneven, SCH, "eps")
    for source in ({"seed": 3}, {"noise": lambda key, like: torch.full_like(like, math.sin(100 * key.t))}):
        found = logsnr.solve(den, x, **given, **source)
        assert found.certificate is not None
        slow, quick = found.certificate.rounds.tolist()
        assert slow > quick
        for k in (0, 1):
            alone = {"seed": [3], "sample_ids": [k]} if "seed" in source else source
            assert torch.equal(found.x[k : k + 1], logsnr.sample(den, x[k : k + 1], **given, **alone))


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


def test_an_empty_batch() -> None:
    """No samples take no rounds."""
    found = logsnr.solve(logsnr.Denoiser(model, SCH), start(0), steps=5, parallel=logsnr.Picard())
    assert found.x.shape == (0, 50)
    assert found.rounds == found.nfe == 0
    assert found.certificate is not None
    assert found.certificate.nfe.dtype is torch.int64
    den = logsnr.Denoiser(model, SCH)
    for solver in ("dpmpp-2m", "sde-dpmpp-2m"):
        kept = logsnr.solve(den, start(0), solver=solver, steps=5, parallel=logsnr.Picard(), trajectory=True).trajectory
        assert kept is not None
        assert kept.shape == (6, 0, 50)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("window = 0 must be an integer of at least 1", {"window": 0}),
    ("window = 2.5 must be an integer", {"window": 2.5}),
    ("window = 'auto' must be an integer", {"window": "auto"}),
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


@pytest.mark.parametrize("solver", ["dpmpp-2m", "sde-dpmpp-2m"])
def test_samples_that_are_numbers(solver: str) -> None:
    """x of shape (B,): the sequential run, bit for bit, and what a callback sees has that shape."""
    den, x, seen = logsnr.analysis.two_gaussians().denoiser(SCH), torch.linspace(-2, 2, 5), list[tuple[int, ...]]()
    options = {"solver": solver, "steps": 6, "seed": 0, "trajectory": True}
    found = logsnr.solve(
        den,
        x,
        parallel=logsnr.Picard(tol=0.0, window=4),
        callback=lambda n, t, s: seen.append(tuple(s.shape)),
        **options,
    )
    whole = logsnr.solve(den, x, **options)
    assert torch.equal(found.x, whole.x)
    assert torch.equal(found.trajectory, whole.trajectory)
    assert seen == [(5,)] * 6


def test_what_cannot_run_in_parallel() -> None:
    """Adaptive solvers, gradients and what is no Picard are refused before any work."""
    den = logsnr.Denoiser(lambda x, t: 1 / 0, SCH)
    with pytest.raises(ValueError, match=r"parallel = Picard.* does not go with an adaptive run"):
        logsnr.sample(den, start(), solver="bosh3", parallel=logsnr.Picard())
    with pytest.raises(TypeError, match=r"parallel must be a logsnr.Picard or a logsnr.Rounds, not int"):
        logsnr.sample(den, start(), steps=3, parallel=7)
    with pytest.raises(ValueError, match="ranks = True needs ranks"):
        logsnr.sample(den, start(), steps=3, parallel=logsnr.Picard(ranks=True))
    with pytest.raises(ValueError, match="record no gradients"):
        logsnr.sample(den, start().requires_grad_(), steps=3, parallel=logsnr.Picard())
