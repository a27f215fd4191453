"""Operators have the adjoints they say, and solve (shift + scale A A^T) exactly, against dense matrices."""

import pickle
from typing import Any

import pytest
import torch

import logsnr
from logsnr.bench.posteriors import dense
from logsnr.control import Linear, LinearProblem, PiGDM, blur, gray, mask, matrix, operator, superresolution
from logsnr.control.inverse import conjugate_gradients

F64 = torch.float64
EVENT = (3, 4, 6)
DATA = logsnr.analysis.Gaussian(torch.zeros(EVENT, dtype=F64), 1.0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pair(a: torch.Tensor) -> Linear:
    return operator(lambda x: x.flatten(1) @ a.mT, lambda y: (y @ a).reshape(-1, *EVENT), EVENT)


OPERATORS = {
    "mask": mask(random(4, 6) > 0),
    "weights": mask(random(1, 4, 6).abs()),
    "superresolution": superresolution(2),
    "gray": gray(),
    "luma": gray(3, [0.299, 0.587, 0.114]),
    "blur": blur(random(3, 2).abs()),
    "box blur": blur(torch.ones(2, 2) / 4),  # knows nothing of the highest frequencies
    "matrix": matrix(random(10, 72), EVENT),
    "singular": matrix(torch.cat([random(4, 72), random(4, 72)]), EVENT),
    "functions": pair(random(10, 72)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_and_solve(name: str) -> None:
    """Row by row, with a shift and a scale for each; the pseudo-inverse is that of the dense matrix."""
    A = OPERATORS[name]
    a, x = dense(A, DATA), random(2, *EVENT, seed=1)
    y = random(2, *A(x).shape[1:], seed=2)
    torch.testing.assert_close(A(x).flatten(1), x.flatten(1) @ a.mT)
    torch.testing.assert_close(A.adjoint(y).flatten(1), y.flatten(1) @ a)
    shift, scale = (torch.tensor(v, dtype=F64).reshape(2, 1, 1, 1) for v in ([0.1, 2.0], [1.0, 0.0]))  # as of states
    found = A.solve(y, shift, scale).flatten(1)
    for b in range(2):
        whole = shift[b].item() * torch.eye(len(a), dtype=F64) + scale[b].item() * a @ a.mT
        torch.testing.assert_close(found[b], torch.linalg.solve(whole, y[b].flatten()))
    seen = A(x)  # y that is measured: conjugate gradients want no other where there is no shift
    wanted = seen.flatten(1) @ torch.linalg.pinv(a, rtol=1e-12).mT
    torch.testing.assert_close(A.pseudo_inverse(seen).flatten(1), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "functions"])
def test_no_samples(name: str) -> None:
    """An empty batch runs, guided by what measures every sample."""
    A = OPERATORS[name]
    guide = PiGDM(LinearProblem(A, A(random(1, *EVENT)), std=0.1), 0.3)
    den = logsnr.Denoiser(lambda x, t: x, logsnr.VPLinear(), "v", map_x0=guide)
    assert logsnr.sample(den, random(0, *EVENT), solver="ddim", steps=2).shape == (0, *EVENT)


def test_the_pseudo_inverse_of_the_book() -> None:
    """(A^T A)^-1 A^T (8.4.2) is singular for what has fewer rows than columns (erratum 8.4)."""
    a = dense(OPERATORS["matrix"], DATA)
    assert torch.linalg.matrix_rank(a.mT @ a) == 10


def test_single_precision_and_pickle() -> None:
    for name in ("mask", "blur", "superresolution", "gray", "matrix"):
        A, x = pickle.loads(pickle.dumps(OPERATORS[name])), random(2, *EVENT)
        found = A(x.float())
        assert found.dtype is torch.float32
        torch.testing.assert_close(found, OPERATORS[name](x).float())
        assert A.pseudo_inverse(found).dtype is torch.float32


def test_conjugate_gradients_stop_by_sample() -> None:
    """A sample that has converged stays, whatever the others need: the same bits alone."""
    m = torch.stack([torch.eye(6, dtype=F64), torch.diag(torch.arange(1.0, 7.0, dtype=F64))])
    b = random(2, 6)

    def alone(k: int) -> torch.Tensor:
        return conjugate_gradients(lambda v: (m[k : k + 1] * v[:, None]).sum(2), b[k : k + 1], 20)

    both = conjugate_gradients(lambda v: (m * v[:, None]).sum(2), b, 20)
    assert torch.equal(both, torch.cat([alone(0), alone(1)]))
    torch.testing.assert_close(both, torch.linalg.solve(m, b), rtol=1e-10, atol=1e-10)
    assert not conjugate_gradients(lambda v: 0 * v, b, 3).any()  # nothing is known
    signs = torch.tensor([1.0, 1, 1, 1, 1, -1], dtype=F64)  # no definite map: it stops before it goes wrong
    assert conjugate_gradients(lambda v: signs * v, b, 20, 0.5).norm() < 2 * b.norm()


def test_pairs_that_are_none() -> None:
    a = random(10, 72)
    forward, adjoint = (lambda x: x.flatten(1) @ a.mT), (lambda y: (y @ a).reshape(-1, *EVENT))
    with pytest.raises(ValueError, match=r"<A u, v> = \S+ but <u, A\^T v> = \S+, which differ by \S+, \S+ of their"):
        operator(forward, lambda y: 1.001 * adjoint(y), EVENT)
    with pytest.raises(TypeError, match=r"adjoint must be a function of tensors, not NoneType; torch\.func\.vjp"):
        operator(forward, None, EVENT)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="forward must be a function"):
        operator(None, adjoint, EVENT)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"adjoint returned shape \(1, 72\)"):
        operator(forward, lambda y: y @ a, EVENT)
    with pytest.raises(ValueError, match="forward is not linear"):
        operator(lambda x: forward(x) + 1e-3, lambda y: adjoint(y) * _affine(forward, adjoint, y), EVENT)


def _affine(forward: Any, adjoint: Any, y: torch.Tensor) -> torch.Tensor:
    """The factor by which an adjoint passes the dot-product test of the affine map, for its u and v."""
    random = torch.Generator().manual_seed(0)
    u = torch.randn(1, *EVENT, generator=random, dtype=F64)
    return ((forward(u) + 1e-3) * y).sum() / (u * adjoint(y)).sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: superresolution(0), "whole number of at least 1"),
        (lambda: superresolution(2.0), "whole number"),  # type: ignore[arg-type]
        (lambda: gray(3, [0, 0, 0]), "not all 0"),
        (lambda: blur(torch.zeros(3, 3)), "not all 0"),
        (lambda: blur(torch.ones(3)), r"matrix \(h, w\)"),
        (lambda: matrix(torch.ones(3)), r"shape \(M, D\)"),
        (lambda: matrix(torch.ones(3, 5), (2, 2)), "has 5 columns, but event = "),
        (lambda: mask(torch.tensor([1.0, torch.inf])), "must be finite"),
    ],
)
def test_bad_operators(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (mask(torch.ones(5, 6)), r"mask: states of shape \(3, 4, 6\) do not go with a mask of shape \(5, 6\)"),
        (mask(torch.ones(2, 3, 4, 6)), "do not go with a mask"),
        (superresolution(5), "a factor of 5"),
        (gray(4), "weights of 4 channels"),
        (blur(torch.ones(5, 5)), "kernel of 5x5"),
        (matrix(torch.ones(2, 72)), r"event = \(72,\)"),
    ],
)
def test_states_that_do_not_fit_are_refused_before_the_first_call(A: Linear, message: str) -> None:
    def never(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    problem = LinearProblem(A, torch.zeros(1, *EVENT))
    with pytest.raises(ValueError, match=message):
        logsnr.sample(logsnr.Denoiser(never, logsnr.EDM(), map_x0=PiGDM(problem)), torch.zeros(2, *EVENT), steps=3)


def test_bad_problems() -> None:
    y = torch.zeros(1, 1, 4, 6)
    with pytest.raises(TypeError, match="A must be an operator"):
        LinearProblem(lambda x: x, y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="y must be a torch tensor"):
        LinearProblem(gray(), [1.0])  # type: ignore[arg-type]
    for std in (-1.0, float("nan"), "1", True):
        with pytest.raises(ValueError, match="std must be a number of at least 0"):
            LinearProblem(gray(), y, std)  # type: ignore[arg-type]
    for wrong in (torch.zeros(1, 3, 4, 6), torch.zeros(3, 1, 4, 6)):
        with pytest.raises(ValueError, match=r"states of shape \(2, 3, 4, 6\) are measured as \(2, 1, 4, 6\)"):
            LinearProblem(gray(), wrong).check(torch.zeros(2, *EVENT))
