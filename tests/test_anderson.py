"""Triangular Anderson acceleration: its coefficients, their bounds, and linear problems."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers import anderson
from logsnr.solvers.anderson import FURTHEST, Anderson, coefficients

NODES, SIZE = 12, 6


def products(changes: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """(W, m, 1 + m) of changes (W, m, D) and residuals (W, D)."""
    return np.einsum("kid,kjd->kij", changes, np.concatenate([residuals[:, None], changes], 1))


def test_coefficients_are_those_of_least_squares() -> None:
    """The coefficients of a node minimise the residuals of the nodes up to it, as a dense least-squares solver finds
    them; those of all nodes together are others."""
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(NODES, 2, SIZE))
    residuals = -0.1 * changes[:, 0] - 0.15 * changes[:, 1] + 0.02 * rng.normal(size=(NODES, SIZE))
    found = coefficients(products(changes, residuals))
    for k in range(NODES):
        wanted, *_ = np.linalg.lstsq(
            changes[: k + 1].transpose(0, 2, 1).reshape(-1, 2), residuals[: k + 1].ravel(), rcond=None
        )
        np.testing.assert_allclose(found[k], wanted, rtol=1e-6)
    assert np.abs(found - found[-1]).max() > 1e-3


def test_coefficients_go_on_and_not_back() -> None:
    """Coefficients whose sum is positive are dropped, those that go further than the bound are shortened to it, and
    nothing known or nothing finite gives none."""
    rng = np.random.default_rng(1)
    changes = rng.normal(size=(1, 2, 40))
    for weights, wanted in (((0.3, 0.2), (0.0, 0.0)), ((-2.0, -1.0), (-2 / 3, -1 / 3)), ((-0.2, 0.1), (-0.2, 0.1))):
        residuals = np.einsum("i,kid->kd", np.array(weights), changes)
        shortened = FURTHEST if sum(weights) < -FURTHEST else 1.0
        np.testing.assert_allclose(
            coefficients(products(changes, residuals))[0], np.array(wanted) * shortened, rtol=1e-6, atol=1e-12
        )
    assert not coefficients(np.zeros((3, 2, 3))).any()
    assert not coefficients(np.full((3, 2, 3), np.nan)).any()


def sweeps(mix: Callable[..., torch.Tensor] | None) -> int:
    """How many it takes to solve u_k = b + c (u_0 + ... + u_(k-1)), many nodes side by side, to 1e-6."""
    count, nodes = 0, torch.zeros(100, SIZE, dtype=torch.float64)
    below = 0.03 * torch.tril(torch.ones(100, 100, dtype=torch.float64), -1)
    b = torch.linspace(1, 2, SIZE, dtype=torch.float64).expand(100, SIZE)
    exact = torch.linalg.solve(torch.eye(100, dtype=torch.float64) - below, b)
    while float((nodes / exact - 1).abs().max()) > 1e-6:
        new = b + below @ nodes
        nodes = mix(0, (new - nodes)[:, None], new[:, None])[:, 0] if mix else new
        count += 1
    return count


def test_linear_triangular_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed sweeps solve a triangular system in fewer sweeps than plain ones; mixed the wrong way they take more."""
    plain, mixed = sweeps(None), sweeps(Anderson().mix)
    monkeypatch.setattr(anderson, "coefficients", lambda products: -coefficients(products))
    wrong = sweeps(Anderson().mix)
    assert mixed <= plain - 2
    assert wrong > plain


def test_windows_that_move_on() -> None:
    """Rows are matched by their calls; rows that a past sweep does not have, and the first sweep, are left."""
    generator = torch.Generator().manual_seed(0)
    acceleration = Anderson()
    first, second = torch.randn(2, 2, 5, 1, SIZE, generator=generator, dtype=torch.float64)
    assert torch.equal(acceleration.mix(0, *first), first[1])
    found = acceleration.mix(3, *second)
    assert torch.equal(found[2:], second[1, 2:])
    again = Anderson()
    again.mix(0, first[0, 3:], first[1, 3:])
    assert torch.equal(again.mix(0, *second), found)
    assert torch.equal(acceleration.mix(9, *second), second[1])


def test_the_past_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parallel run hands over what its sweeps have changed, which is the new nodes less the mixed ones of the last
    time, and what was handed over does not change later."""
    told: list[list[torch.Tensor]] = []
    mixed: list[torch.Tensor] = []
    mix = Anderson.mix

    def watched(self: Anderson, first: int, residuals: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        for past, at in zip(self.past, reversed(range(len(told))), strict=False):
            assert torch.equal(past[1], told[at][0])
            assert torch.equal(past[2], told[at][1])
        if mixed:
            before = mixed[-1][-len(nodes) :]
            torch.testing.assert_close(residuals, nodes - before, rtol=1e-12, atol=1e-12)
        told.append([residuals.clone(), nodes.clone()])
        mixed.append(mix(self, first, residuals, nodes))
        return mixed[-1].clone()

    monkeypatch.setattr(Anderson, "mix", watched)
    den = logsnr.Denoiser(lambda x, t: x / (1 + x * x), logsnr.VPLinear(), "v")
    x = torch.linspace(-2, 2, 30, dtype=torch.float64)[None]
    logsnr.sample(den, x, steps=30, parallel=logsnr.Picard(accelerate="anderson", tol=1e-6))
    assert len(told) > 4
