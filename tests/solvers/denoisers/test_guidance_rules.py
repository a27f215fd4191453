"""Rules of guidance that look at both answers, or at those before, against what defines them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers.denoisers.conditions import as_rows

SCH = logsnr.Trigonometric()
Y, ZERO = torch.tensor([0.4, -0.3, 0.9], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
X = logsnr.randn((3, 4, 5), seed=0, dtype=torch.float64)


def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    time = t.reshape(-1, 1, 1)
    return torch.sin(x + time) + y.reshape(-1, 1, 1) * torch.cos(2 * x - time)


def guided(kind: str, **options: float) -> logsnr.Denoiser:
    guidance = logsnr.Guidance(3.0, uncond={"y": ZERO}, kind=kind, options=options)
    return logsnr.Denoiser(network, SCH, "v", conditions={"y": Y}, guidance=guidance)


@pytest.mark.parametrize("mixed", [0.0, 0.8, 1.0, -2.0])
def test_tangential_damping_is_a_projection_on_a_singular_vector(mixed: float) -> None:
    u, c = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    c = c + mixed * u
    for k in range(3):
        _, _, rows = torch.linalg.svd(torch.stack([c[k].reshape(-1), u[k].reshape(-1)]), full_matrices=False)
        damped = (u[k].reshape(-1) @ rows[0] * rows[0]).reshape(4, 5)
        found = guided("tcfg").guidance.combined(u, c, 3.0)[k]  # type: ignore[union-attr]
        torch.testing.assert_close(found, damped + 3 * (c[k] - damped), rtol=1e-10, atol=1e-10)
    nothing = torch.zeros_like(u)
    assert torch.isfinite(guided("tcfg").guidance.combined(nothing, nothing, 3.0)).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["rescale", "zero-star", "apg", "tcfg", "perpendicular"])
def test_a_sample_has_the_same_bits_alone(kind: str) -> None:
    """Sums over its elements do not depend on how many samples there are, and "rescale" has gradients everywhere."""
    combined = guided(kind).guidance.combined  # type: ignore[union-attr]
    for shape in ((6, 1), (4, 3), (5, 4, 33), (6, 1000)):
        u, c = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        whole = combined(u, c, 3.0)
        for b in range(len(u)):
            assert torch.equal(combined(u[b : b + 1], c[b : b + 1], 3.0), whole[b : b + 1])
    for flat in (torch.ones(2, 4), torch.randn(2, 4, generator=torch.Generator().manual_seed(1))):
        c = flat.clone().requires_grad_()
        combined(torch.zeros(2, 4), c, 3.0).sum().backward()
        assert c.grad is not None
        assert torch.isfinite(c.grad).all()


@pytest.mark.parametrize("batched", [True, False])
def test_momentum_goes_from_call_to_call(batched: bool) -> None:
    """Sadat et al. 2025, algorithm 1, in a loop of DDIM."""
    times = logsnr.grid(SCH, 5)
    x, running = X, torch.zeros_like(X)
    dot = lambda a, b: (a * b).sum((1, 2), keepdim=True)  # noqa: E731
    for s, t in pairwise(times):
        told = torch.full((3,), s, dtype=torch.float64)
        u, c = network(x, told, ZERO), network(x, told, Y)
        running = c - u - 0.5 * running
        d = running * (2.0 / dot(running, running).sqrt()).clamp(max=1.0)
        v = c + 2 * (d - dot(d, c) / dot(c, c) * c)
        x0, eps = SCH.alpha(s) * x - SCH.sigma(s) * v, SCH.sigma(s) * x + SCH.alpha(s) * v
        x = SCH.alpha(t) * x0 + SCH.sigma(t) * eps
    den = guided("apg", momentum=-0.5, threshold=2.0)
    object.__setattr__(den.guidance, "batched", batched)
    for _ in range(2):  # each run begins with nothing
        torch.testing.assert_close(logsnr.sample(den, X, solver="ddim", grid=times), x, rtol=0, atol=1e-10)
    plain = logsnr.sample(guided("apg", threshold=2.0), X, solver="ddim", grid=times)
    assert (plain - x).abs().max() > 1e-3


def test_momentum_needs_calls_in_order() -> None:
    den = guided("apg", momentum=-0.5)
    in_groups = {"steps": 4, "grad": True, "checkpoint": 2}
    for options in ({"parallel": logsnr.Picard(), "steps": 4}, {"solver": "dopri5", "rtol": 1e-3}, in_groups):
        with pytest.raises(ValueError, match="momentum goes from one call of a run to the next"):
            logsnr.sample(den, X, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="momentum goes from one call"):
        den.x0(X, 0.5)


def test_conditions_that_one_call_cannot_have_both_are_asked_for_in_two() -> None:
    """Numbers, strings and embeddings of other lengths: never the first's for both."""

    def model(x: torch.Tensor, t: torch.Tensor, y: Any) -> torch.Tensor:
        return 0.5 * x + (y.mean() if isinstance(y, torch.Tensor) else len(y) if isinstance(y, str) else y)

    for one, other in ((0.5, -0.25), ("abc", "d"), (torch.ones(3, 4), torch.zeros(3, 2))):
        guided = {
            batched: logsnr.sample(
                logsnr.Denoiser(
                    model, SCH, "v", conditions={"y": one},
                    guidance=logsnr.Guidance(2.0, uncond={"y": other}, batched=batched),
                ),
                X, steps=3, solver="ddim",
            )
            for batched in (True, False)
        }  # fmt: skip
        assert torch.equal(guided[True], guided[False])
        plain = logsnr.Denoiser(model, SCH, "v", conditions={"y": one})
        assert (guided[True] - logsnr.sample(plain, X, steps=3, solver="ddim")).abs().max() > 0.1


@pytest.mark.parametrize("number", [0, 0.0, np.float32(0), torch.zeros(())])
def test_a_number_in_the_place_of_a_condition_is_that_of_every_row(number: Any) -> None:
    """As a null label is, in every way to ask; what the rows cannot hold is handed on."""
    for options in ({}, {"parallel": logsnr.Picard(window=3, tol=0)}):
        wanted = logsnr.sample(guided("cfg"), X, steps=3, solver="ddim", **options)
        for batched in (True, False):
            guidance = logsnr.Guidance(3.0, uncond={"y": number}, batched=batched)
            den = logsnr.Denoiser(network, SCH, "v", conditions={"y": Y}, guidance=guidance)
            torch.testing.assert_close(logsnr.sample(den, X, steps=3, solver="ddim", **options), wanted)
    labels = torch.tensor([[1], [2]])
    assert as_rows(7, labels).tolist() == [[7], [7]]
    assert as_rows(0.5, labels) == 0.5
    assert as_rows(7, 3) == 7


def test_conditions_in_a_closure() -> None:
    """What to do is said where the model meets more rows than it knows of."""
    caught = Y[:, None, None]
    for model in (lambda x, t, y: x * caught, lambda x, t, y: caught.expand_as(X)):
        den = logsnr.Denoiser(model, SCH, "v", conditions={"y": Y}, guidance=logsnr.Guidance(2.0, uncond={"y": ZERO}))
        with pytest.raises((RuntimeError, ValueError)) as told:
            logsnr.sample(den, X, steps=2, solver="ddim")
        assert "6 rows, both answers of 3 samples" in " ".join(told.value.__notes__)
        plain = logsnr.Denoiser(model, SCH, "v", conditions={"y": Y})
        with pytest.raises((RuntimeError, ValueError)) as told:
            logsnr.sample(plain, X, steps=4, solver="ddim", parallel=logsnr.Picard())
        assert "a parallel run has given the model 12 rows" in " ".join(told.value.__notes__)
