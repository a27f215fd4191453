"""Parareal: the formula, tolerance 0, what is counted, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import SOLVERS, model, reusing, start

import logsnr
from logsnr.bench.picard import distances
from logsnr.bench.problems import load_problem

SCH = logsnr.VPLinear()
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize(("coarse", "blocks"), [("ddim", None), ("dpmpp-2m", 9), ("heun", 4), ("ddim", 1)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_tolerance_0_is_the_sequential_answer(solver: str, coarse: str, blocks: int | None) -> None:
    """At tolerance 0 the end and the whole trajectory have the bits of the sequential run, and the certificate says
    so, whatever the model predicts."""
    x, given = start(), {"solver": solver, "steps": 9, "seed": 4, "trajectory": True}
    for head in ("eps", "x0", "v"):
        den = logsnr.Denoiser(model, SCH, head)
        wanted = logsnr.solve(den, x, **given)  # type: ignore[arg-type]
        found = logsnr.solve(den, x, parallel=logsnr.Parareal(coarse, blocks, 0.0), **given)  # type: ignore[arg-type]
        assert torch.equal(found.x, wanted.x)
        assert found.trajectory is not None
        assert wanted.trajectory is not None
        assert torch.equal(found.trajectory, wanted.trajectory)
        assert found.certificate is not None
        assert found.certificate.change.shape == (wanted.nfe, 3)
        assert not found.certificate.change.any()
        assert not found.certificate.distance.any()


@pytest.mark.parametrize("kind", [F64, F16, BF16])
def test_dtypes(kind: torch.dtype) -> None:
    """The state stays as wide as in the sequential run while the model sees its own dtype: the same bits."""
    x = start(dtype=F32 if kind is BF16 else kind)
    den = logsnr.Denoiser(model, SCH, "eps", dtype=kind)
    for solver in ("dpmpp-2m", "sde-dpmpp-2m"):
        wanted = logsnr.sample(den, x, solver=solver, steps=8, seed=0)
        found = logsnr.sample(den, x, solver=solver, steps=8, seed=0, parallel=logsnr.Parareal(tol=0.0))
        assert found.dtype is x.dtype
        assert torch.equal(found, wanted)


def test_the_formula() -> None:
    """One iteration is U <- F(U) + G(new) - G(U), here with sequential runs from block to block as F and G; without
    the correction by G it is not."""
    den, x, grid = logsnr.Denoiser(model, SCH, "v"), start(dtype=F64), logsnr.grid(SCH, 12)
    ends = [grid[:5], grid[4:9], grid[8:]]

    def fine(x: torch.Tensor, j: int) -> torch.Tensor:
        return logsnr.sample(den, x, solver="dpmpp-3s", grid=ends[j])

    def coarse(x: torch.Tensor, j: int) -> torch.Tensor:
        return logsnr.sample(den, x, solver="heun", grid=ends[j][[0, -1]])

    old, new, plain = [x], [x], [x]
    for j in range(3):
        old.append(coarse(old[j], j))
    for j in range(3):
        new.append(fine(old[j], j) + coarse(new[j], j) - coarse(old[j], j))
        plain.append(fine(old[j], j))
    found = logsnr.solve(den, x, solver="dpmpp-3s", grid=grid, parallel=logsnr.Parareal("heun", 3, 1.0))
    torch.testing.assert_close(found.x, new[3], rtol=1e-10, atol=1e-12)
    assert float((found.x - plain[3]).norm() / (new[3] - plain[3]).norm()) == pytest.approx(1)
    assert float((new[3] - plain[3]).norm() / new[3].norm()) > 1e-3
    assert found.certificate is not None
    change = [((n - o).norm(dim=1) / n.norm(dim=1))[0].item() for n, o in zip(new, old, strict=True)]
    np.testing.assert_allclose(found.certificate.change[::12, 0], change[:3], rtol=1e-8)


def test_rounds_and_evaluations_are_counted() -> None:
    """A round is one call of the model: the coarse steps one by one, the calls of the blocks side by side; blocks and
    coarse steps before the first that may still change are not made again."""
    sizes: list[int] = []

    def counting(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (len(x),)
        sizes.append(len(x))
        return model(x, t)

    den, x = logsnr.Denoiser(counting, SCH, "eps"), start(1)
    found = logsnr.solve(den, x, solver="ddim", steps=9, parallel=logsnr.Parareal(tol=0.0))
    assert sizes == [*[1] * 3, *[3] * 3, *[1] * 2, *[2] * 3, 1, *[1] * 3]
    assert found.rounds == len(sizes)
    assert found.nfe == sum(sizes)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    """A sample has the same bits, certificate and counts alone as in a batch of which others are done earlier."""
    den, parallel = logsnr.Denoiser(model, SCH, "v"), logsnr.Parareal(tol=0.1, blocks=8)
    x = start(4) * torch.tensor([0.1, 1.0, 5.0, 30.0])[:, None]
    given: dict[str, Any] = {"solver": "sde-dpmpp-2m", "steps": 30, "parallel": parallel, "trajectory": True}
    whole = logsnr.solve(den, x, seed=[1, 2, 3, 4], **given)
    assert whole.certificate is not None
    assert whole.trajectory is not None
    assert len({*whole.certificate.rounds.tolist()}) > 1
    assert (whole.rounds, whole.nfe) == (whole.certificate.rounds.max(), whole.certificate.nfe.max())
    assert torch.equal(whole.trajectory[-1], whole.x)
    for b in range(4):
        alone = logsnr.solve(den, x[b : b + 1], seed=[b + 1], **given)
        assert alone.certificate is not None
        assert alone.trajectory is not None
        assert torch.equal(alone.x[0], whole.x[b])
        assert torch.equal(alone.trajectory[:, 0], whole.trajectory[:, b])
        for name in ("change", "distance", "rounds", "nfe"):
            assert torch.equal(getattr(alone.certificate, name)[..., 0], getattr(whole.certificate, name)[..., b])


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m"])
def test_on_digits(solver: str) -> None:
    """100 steps on the digits take fewer rounds than calls, end within the tolerance of the sequential answer, and the
    estimate is no less than a tenth of the distance for most."""
    problem = load_problem("digits")
    x = problem.start(6, 0)
    given: dict[str, Any] = {"solver": solver, "steps": 100}
    found = logsnr.solve(problem.denoiser, x, parallel=logsnr.Parareal(tol=1e-2), **given)
    far = distances(found.x, logsnr.sample(problem.denoiser, x, **given))
    assert found.certificate is not None
    assert found.certificate.rounds.double().median() < 100
    assert far.median() < 1e-2
    assert (found.certificate.distance > far / 10).double().mean() > 0.8


def test_non_finite_answers() -> None:
    """A model that breaks down at a time is reported with the call and time of the sequential run."""
    x = start()
    den = logsnr.Denoiser(lambda x, t: torch.where((t < 0.5)[:, None], torch.nan, model(x, t)), SCH, "eps")
    with pytest.raises(logsnr.NonFiniteError) as wanted:
        logsnr.sample(den, x, steps=10)
    for blocks in (1, 3, 10):
        with pytest.raises(logsnr.NonFiniteError) as found:
            logsnr.sample(den, x, steps=10, parallel=logsnr.Parareal(blocks=blocks))
        assert (found.value.call, found.value.t) == (wanted.value.call, wanted.value.t)
    with pytest.raises(ValueError, match="x holds infinities or NaNs"):
        logsnr.sample(logsnr.Denoiser(model, SCH), x * math.inf, steps=4, parallel=logsnr.Parareal())


def test_models_that_use_their_memory_again() -> None:
    """A model may change what it is given and return the same tensor every time."""
    x, buffer = start(), torch.zeros(99, 50)

    wanted = logsnr.sample(logsnr.Denoiser(model, SCH), x, steps=6)
    found = logsnr.sample(logsnr.Denoiser(reusing(buffer), SCH), x, steps=6, parallel=logsnr.Parareal(tol=0.0))
    assert torch.equal(found, wanted)


def test_an_empty_batch() -> None:
    """No samples take no rounds."""
    found = logsnr.solve(logsnr.Denoiser(model, SCH), start(0), steps=5, parallel=logsnr.Parareal())
    assert found.x.shape == (0, 50)
    assert found.rounds == found.nfe == 0


def run(**given: Any) -> torch.Tensor:
    return logsnr.sample(logsnr.Denoiser(model, SCH), start(), **given)


BAD: list[tuple[str, Any]] = [
    ("takes fixed steps; bosh3 is adaptive", lambda: logsnr.Parareal("bosh3")),
    ("adds no noise; sde-dpmpp-2m is stochastic", lambda: logsnr.Parareal("sde-dpmpp-2m")),
    ("'dim' is unknown; did you mean 'ddim'", lambda: logsnr.Parareal("dim")),
    ("blocks = 0 must be an integer of at least 1", lambda: logsnr.Parareal(blocks=0)),
    ("tol = 2 must be a number from 0 to 1", lambda: logsnr.Parareal(tol=2)),
    (
        "blocks = 5 must be at most the number of steps, 4",
        lambda: run(steps=4, parallel=logsnr.Parareal(blocks=5)),
    ),
    (
        "parallel = Parareal.* does not go with an adaptive run",
        lambda: run(solver="bosh3", parallel=logsnr.Parareal()),
    ),
    (
        "record no gradients",
        lambda: logsnr.sample(
            logsnr.Denoiser(model, SCH), start().requires_grad_(), steps=3, parallel=logsnr.Parareal()
        ),
    ),
]


@pytest.mark.parametrize(("message", "mistake"), BAD, ids=[message for message, _ in BAD])
def test_bad_settings(message: str, mistake: Any) -> None:
    """What makes no sense is refused, and says why."""
    with pytest.raises(ValueError, match=message):
        mistake()
