"""Gaussians in a basis: exact in one step where they are independent, of the planner's order elsewhere; their moments
from data, from covariances and from denoisers."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mutants import altered

import logsnr
from logsnr import analysis
from logsnr.bench.orders import nodes
from logsnr.solvers import DCT, Adams, Call, Principal

SHAPE, N = (2, 3, 4), 24
F64 = torch.float64
R = np.random.default_rng(0)
MEAN = R.standard_normal(SHAPE)
ROOT = R.standard_normal((N, N)) * np.geomspace(0.1, 1.0, N)
FULL = analysis.Gaussian(MEAN, ROOT @ ROOT.T)
VARIANCE = np.geomspace(0.01, 9.0, N).reshape(SHAPE)
COSINES = DCT().back(torch.eye(N, dtype=F64).reshape(N, *SHAPE)).reshape(N, N).numpy()  # row k: coordinate k
SMOOTH = analysis.Gaussian(MEAN, COSINES.T @ np.diag(VARIANCE.ravel()) @ COSINES)
SCHEDULES = [logsnr.VPLinear(), logsnr.EDM(), logsnr.FlowMatching()]


@pytest.mark.parametrize(("data", "basis"), [(FULL, "pca"), (SMOOTH, "dct"), (SMOOTH, "pca")])
@pytest.mark.parametrize("sch", SCHEDULES, ids=repr)
def test_its_gaussian_is_exact_in_one_step(sch: logsnr.Schedule, data: analysis.Gaussian, basis: str) -> None:
    """And in several; in pixels it is not."""
    x = data.sample_at(sch, sch.t_start, 3, generator=torch.Generator().manual_seed(0))
    gauge = logsnr.Wiener.from_moments(data.mean, data.cov, basis)
    exact = data.flow(x, sch, sch.t_start, sch.t_end)
    for order, steps in ((1, 1), (2, 3)):
        found = logsnr.sample(data.denoiser(sch), x, solver=Adams(gauge, order), steps=steps)
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    pixels = logsnr.Wiener.from_moments(data.mean, data.cov, "pixel")
    assert (logsnr.sample(data.denoiser(sch), x, solver=Adams(pixels), steps=1) - exact).abs().max() > 0.1


def test_from_data() -> None:
    """The components diagonalise the covariance of the data, the frequencies have its diagonal there."""
    data = FULL.sample(50, generator=torch.Generator().manual_seed(1)).numpy()
    flat = data.reshape(50, N)
    mean, cov = flat.mean(0), np.cov(flat.T, bias=True)
    pca = logsnr.Wiener.from_data(data, "pca")
    assert isinstance(pca.basis, Principal)
    q = pca.basis.matrix
    np.testing.assert_allclose(q.T @ np.diag(pca.variance.ravel()) @ q, cov, atol=1e-12)
    np.testing.assert_allclose(q.T @ pca.mean.ravel(), mean, atol=1e-12)
    assert (np.diff(pca.variance.ravel()) <= 0).all()
    dct = logsnr.Wiener.from_data(torch.from_numpy(data), "dct")
    assert dct.basis == DCT(2)
    np.testing.assert_allclose(dct.variance.ravel(), np.diag(COSINES @ cov @ COSINES.T), atol=1e-12)
    np.testing.assert_allclose(dct.mean.ravel(), COSINES @ mean, atol=1e-12)
    for basis in ("pixel", "dct", "pca"):
        same = logsnr.Wiener.from_moments(mean.reshape(SHAPE), cov, basis)
        np.testing.assert_allclose(same.variance, logsnr.Wiener.from_data(data, basis).variance, atol=1e-12)
    assert logsnr.Wiener.from_data(flat, "dct").basis == DCT(1)
    assert logsnr.Wiener.from_data(data, DCT(1)).basis == DCT(1)


def test_directions_without_variance() -> None:
    """Of fewer points than elements: the components are whole, and the others have variance 0."""
    data = FULL.sample(6, generator=torch.Generator().manual_seed(5))
    gauge = logsnr.Wiener.from_data(data, "pca")
    assert np.count_nonzero(gauge.variance) == 5
    assert gauge.variance.shape == SHAPE
    flat = data.reshape(6, N)
    few = analysis.Gaussian(data.mean(0), torch.cov(flat.T, correction=0))
    sch = logsnr.VPLinear()
    x = few.sample_at(sch, 1.0, 3, generator=torch.Generator().manual_seed(0))
    found = logsnr.sample(few.denoiser(sch), x, solver=Adams(gauge), steps=1)
    torch.testing.assert_close(found, few.flow(x, sch, 1.0, sch.t_end), rtol=0, atol=1e-12)


def test_values() -> None:
    gauge = logsnr.Wiener.from_moments(FULL.mean, FULL.cov)
    assert gauge == logsnr.Wiener(gauge.mean, gauge.variance, basis=gauge.basis)
    assert hash(gauge) == hash(logsnr.Wiener(gauge.mean, gauge.variance, basis=gauge.basis))
    assert gauge != logsnr.Wiener(gauge.mean, gauge.variance)
    assert logsnr.solver("wiener-2", gaussian=gauge).name == "wiener-2 (gaussian=Wiener(2, 3, 4, pca))"
    assert logsnr.solver("wiener-1", gaussian=logsnr.Wiener(0, 1, basis="dct")).name.endswith("Wiener(0, 1, dct))")


TURN = np.array([[0.6, 0.8], [-0.8, 0.6]])
MIXTURE = analysis.GaussianMixture([[-1.0, 0.5], [0.8, -0.4]], [np.diag([0.1, 0.3]), np.diag([0.3, 0.2])], [0.4, 0.6])


def mutant(call: Call) -> np.ndarray:
    """One weight off by 2 %: of the newest value, or of the oldest one."""
    matrix = call.matrix.copy()
    matrix[0, 1 if len(call.reads) < 3 else -1] *= 1.02
    return matrix


@pytest.mark.parametrize("order", [2])
def test_orders(order: int) -> None:
    """On a mixture, in turned coordinates."""
    sch = logsnr.VPLinear()
    gauge = logsnr.Wiener([0.2, -0.1], [1.2, 0.4], basis=Principal(TURN, (2,)))
    method = logsnr.Solver(f"wiener-{order}", planner=Adams(gauge, order))
    found, wrong = (
        analysis.convergence_order(m, MIXTURE, sch, grids=partial(nodes, sch), max_nfe=130)
        for m in (method, altered(method, mutant))
    )
    assert found.order == pytest.approx(order, abs=0.1)
    assert wrong.order != pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("sch", "head"), list(zip(SCHEDULES, ("eps", "x0", "velocity"), strict=True)), ids=repr)
def test_a_denoiser_knows_its_gaussian(sch: logsnr.Schedule, head: str) -> None:
    """Exactly where it is independent, over three decades of variance; by differences too."""
    few: dict[str, Any] = dict(points=4, rounds=2)
    gauge = logsnr.Wiener.from_denoiser(SMOOTH.denoiser(sch, head), SHAPE, "dct", **few)
    np.testing.assert_allclose(gauge.variance, VARIANCE, rtol=1e-9)
    np.testing.assert_allclose(gauge.mean.ravel(), COSINES @ MEAN.ravel(), atol=1e-11)


def test_a_denoiser_without_forward_mode() -> None:
    """Small data far from 0, in fp32, by differences."""

    class Blind(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grad: torch.Tensor) -> torch.Tensor:
            return grad[0]

    sch, data = logsnr.EDM(), analysis.Gaussian([3.0, -2.0, 0.5], [0.01, 0.04, 0.0])
    exact = data.denoiser(sch)
    den = logsnr.Denoiser(lambda x, t: Blind.apply(exact.model(x, t)), sch, "x0", dtype=torch.float32)
    gauge = logsnr.Wiener.from_denoiser(den, (3,), points=4, rounds=2)
    np.testing.assert_allclose(gauge.mean, data.mean, atol=1e-5)
    np.testing.assert_allclose(gauge.variance, data.variances, rtol=0.01, atol=1e-4)


def test_a_denoiser_of_a_mixture() -> None:
    """What is not Gaussian in the data is of fourth order in scale / v."""
    mixture = analysis.GaussianMixture(means=[[-1.0], [0.8]], covs=[0.1, 0.3], weights=[0.4, 0.6])
    gauge = logsnr.Wiener.from_denoiser(mixture.denoiser(logsnr.VPLinear()), (1,), points=64, rounds=2)
    assert gauge.mean == pytest.approx(0.08, abs=1e-3)
    assert gauge.variance == pytest.approx(0.4 * 0.6 * 1.8**2 + 0.22, rel=3e-3)


def test_a_denoiser_of_correlated_data() -> None:
    """The diagonal of a full covariance within its noise, less with more rounds."""
    den, wanted = FULL.denoiser(logsnr.VPLinear()), np.diag(FULL.cov)
    off = [
        np.abs(np.log(logsnr.Wiener.from_denoiser(den, SHAPE, rounds=n, seed=1).variance.ravel() / wanted)).mean()
        for n in (1, 8)
    ]
    assert off[1] < 0.3
    assert off[1] < off[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: logsnr.Wiener.from_data(np.zeros((9, 4)), "haar"), "basis must be 'pixel', 'dct', 'pca' or"),
        (lambda: logsnr.Wiener(0.0, 1.0, basis="pca"), "basis = 'pca' needs the components: Wiener.from_data"),
        (lambda: logsnr.Wiener.from_data(np.zeros(9), "dct"), r"needs samples of as many, not of shape \(\)"),
        (lambda: logsnr.Wiener.from_data(np.zeros((2, 3, 128, 128)), "pca"), "take basis='dct'"),
        (lambda: logsnr.Wiener(np.zeros(3), 1.0, basis=Principal(TURN, (2,))), r"shape \(3,\) do not fit a basis"),
        (lambda: logsnr.Wiener.from_moments([0.0, 1.0], np.eye(3)), r"covariance must be \(2, 2\)"),
        (lambda: logsnr.Wiener.from_moments([0.0, 1.0], [[1, 2], [0, 1]]), "covariance must be symmetric"),
        (lambda: logsnr.Wiener.from_moments([0.0, 1.0], [[1, 2], [2, 1]]), "has the eigenvalue -1"),
        (lambda: logsnr.Wiener.from_moments([0.0, 1.0], np.diag([1, -1]), "pixel"), "variance must not be negative"),
        (lambda: logsnr.Wiener.from_denoiser(MIXTURE.denoiser(SCHEDULES[0]), (2,), "pca"), "needs the components"),
        (lambda: logsnr.Wiener.from_denoiser(MIXTURE.denoiser(SCHEDULES[0]), (2,), points=0), "points"),
        (lambda: logsnr.Wiener.from_denoiser(MIXTURE.denoiser(SCHEDULES[0]), (0,)), "event_shape"),
        (lambda: logsnr.Wiener.from_denoiser(MIXTURE.denoiser(SCHEDULES[0]), (3,)), "it must end in"),
        (lambda: logsnr.Wiener.from_denoiser(NOWHERE, (3,)), "the denoiser's x0 is not finite at t"),
        (lambda: Principal(np.zeros((2, 2)), (2,)), "orthogonal to 1e-10"),
        (lambda: Principal([["a"]], (1,)), "matrix must be of numbers"),  # type: ignore[arg-type]
        (lambda: Principal(np.full((2, 2), np.nan), (2,)), "matrix must be finite"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


NOWHERE = logsnr.Denoiser(lambda x, t: x / 0, SCHEDULES[0], "x0")


def test_what_is_no_denoiser() -> None:
    with pytest.raises(TypeError, match=r"den must be a logsnr.Denoiser, not function"):
        logsnr.Wiener.from_denoiser(lambda x, t: x, (3,))
