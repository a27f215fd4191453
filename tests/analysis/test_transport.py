"""Optimal and entropic transport, against assignments, limits and closed forms of other origin."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

import logsnr

A = logsnr.analysis
RNG = np.random.default_rng(0)
EYE = torch.eye(3, dtype=torch.float64)


def spd(seed: int, size: int = 3) -> torch.Tensor:
    b = np.random.default_rng(seed).standard_normal((size, size))
    return torch.from_numpy(b @ b.T / size + 0.1 * np.eye(size))


S1, S2 = spd(1), spd(2)
M1, M2 = torch.tensor([[0.3, -1.0, 0.5], [1.0, 0.2, 0.0]], dtype=torch.float64)


def test_gaussian_map() -> None:
    """Symmetric, positive, from S1 to S2, at the cost W2^2, which scipy's roots give too."""
    found = A.gaussian_transport(M1, S1, M2, S2)
    a = found.matrix
    torch.testing.assert_close(a @ S1 @ a, S2, rtol=1e-12, atol=1e-12)
    assert torch.equal(a, a.mT)
    assert torch.linalg.eigvalsh(a).amin() > 0
    root = np.real(sqrtm(S1.numpy()))
    bures = float(torch.trace(S1 + S2)) - 2 * np.trace(np.real(sqrtm(root @ S2.numpy() @ root)))
    assert found.w2**2 == pytest.approx(bures + float((M1 - M2).square().sum()), rel=1e-7)
    paid = torch.trace((a - EYE) @ S1 @ (a - EYE)) + (M1 - M2).square().sum()
    assert found.w2**2 == pytest.approx(float(paid), rel=1e-10)
    x = torch.from_numpy(RNG.standard_normal((2, 4, 3)))
    moved = found(x)
    torch.testing.assert_close(moved[1, 2], M2 + a @ (x[1, 2] - M1))
    torch.testing.assert_close(found.between(x, 0.25), 0.75 * x + 0.25 * moved)
    log_p = torch.distributions.MultivariateNormal
    forward = log_p(M1, S1).log_prob(x) - torch.linalg.slogdet(a)[1]
    torch.testing.assert_close(forward, log_p(M2, S2).log_prob(moved))  # Monge-Ampere, book 7.2.4


def test_diagonal_and_image_shaped_gaussians() -> None:
    mean, v = torch.zeros(2, 2), torch.tensor([[0.5, 2.0], [1.0, 1e-8]])
    found = A.gaussian_transport(mean, v, mean, 4.0)
    full = A.gaussian_transport(mean, torch.diag(v.flatten()), mean, 4.0)
    torch.testing.assert_close(found.matrix, torch.diag(torch.sqrt(4 / v.double().flatten())), rtol=1e-15, atol=0)
    torch.testing.assert_close(full.matrix, found.matrix, rtol=1e-7, atol=1e-7)
    x = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(0))
    assert found(x).dtype is torch.float32
    assert found(x).shape == x.shape
    torch.testing.assert_close(found(x), x * torch.sqrt(4 / v))
    with pytest.raises(ValueError, match="no map starts from a singular"):
        A.gaussian_transport(mean, 0.0, mean, 1.0)
    with pytest.raises(ValueError, match="S1 must be positive definite, but has the eigenvalue"):
        A.gaussian_transport([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]], [0.0, 0.0], 1.0)


@pytest.mark.parametrize(
    "sch", [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM()], ids=lambda s: type(s).__name__
)
def test_flow_of_gaussian_data_is_optimal(sch: logsnr.Schedule) -> None:
    """Book 7.5: between the marginals of Gaussian data the PF-ODE's map is the optimal one."""
    data = A.Gaussian(M1, S1)
    s, t = (float(sch.time(lam)) for lam in (-1.0, 2.0))
    best = A.gaussian_transport(*data.marginal(sch, s), *data.marginal(sch, t))
    x = torch.from_numpy(RNG.standard_normal((6, 3)))
    torch.testing.assert_close(data.flow(x, sch, s, t), best(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", ["diffusion", "straight"])
def test_gap_between_gaussians(path: str) -> None:
    """0 where covariances commute or the source is isotropic; more where not, between Brenier and independence."""
    vectors = torch.linalg.eigh(S1)[1]
    same = vectors @ torch.diag(torch.tensor([0.2, 1.5, 3.0], dtype=torch.float64)) @ vectors.mT
    for one, other in ((S1, same), (0.7 * EYE, S2)):
        found = A.gaussian_gap(one, other, path)
        assert found.gap == pytest.approx(0, abs=1e-9)
        assert found.distance < 1e-5
    found = A.gaussian_gap(S1, S2, path)
    assert found.optimal == pytest.approx(A.w2_gaussian(M1, S1, M1, S2) ** 2)
    assert 1e-3 < found.gap < float(torch.trace(S1 + S2)) - found.optimal
    assert found.distance > 0.01
    assert found.gap <= found.distance**2 * 10


def test_diffusion_path_is_two_flows() -> None:
    """To noise by the flow of one Gaussian and back by that of the other, as far out as it goes."""
    sch = logsnr.EDM(sigma_max=1e5)
    x = torch.from_numpy(RNG.standard_normal((4, 3)))
    noise = A.Gaussian([0.0] * 3, S1).flow(x, sch, 0.0, 1e5)
    end = A.Gaussian([0.0] * 3, S2).flow(noise, sch, 1e5, 0.0)
    matrix = torch.from_numpy(np.real(sqrtm(S2.numpy())) @ np.linalg.inv(np.real(sqrtm(S1.numpy()))))
    torch.testing.assert_close(end, x @ matrix.mT, rtol=1e-5, atol=1e-5)
    paid = torch.trace((matrix - EYE) @ S1 @ (matrix - EYE).mT)
    assert A.gaussian_gap(S1, S2, "diffusion").cost == pytest.approx(float(paid), rel=1e-8)


def test_straight_path_by_samples_of_its_flow() -> None:
    """The flow-matching denoiser of N(0, S2), solved from N(0, S1), has the exact cost."""
    one, other = S1, S2

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:  # d/dt from t = 1, the source, to 0
        u = 1 - t[0].item()
        now = (1 - u) ** 2 * one + u * u * other
        return -x @ torch.linalg.solve(now, (u * other - (1 - u) * one).mT)

    sch = logsnr.FlowMatching()
    x = torch.linalg.cholesky(one).mT * math.sqrt(3)  # three points with the covariance S1, about 0
    end = logsnr.sample(logsnr.Denoiser(velocity, sch, "velocity"), x, solver="rk4", steps=50, grid="time")
    exact = A.gaussian_gap(one, other)
    torch.testing.assert_close(end.mT @ end / 3, other, rtol=1e-6, atol=1e-6)
    assert (end - x).square().sum(1).mean().item() == pytest.approx(exact.cost, rel=1e-6)


def test_gap_by_samples() -> None:
    """0 in one dimension and for Gaussian data; not for a mixture in the plane."""
    sch = logsnr.FlowMatching()
    line = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2])
    x = logsnr.start(sch, (64,), seed=0, dtype=torch.float64)
    found = A.transport_gap(line.denoiser(sch, "velocity"), x, solver="rk4", steps=20)
    assert found.gap == pytest.approx(0, abs=1e-12)
    assert found.distance == 0
    start = logsnr.start(sch, (64, 3), seed=0, dtype=torch.float64)
    flow = A.Gaussian(M1, S1).flow(start, sch, 1.0, 0.0)
    assert A.transport_gap(start, flow).gap == pytest.approx(0, abs=1e-12)
    shuffled = A.transport_gap(start, flow.flip(0))
    assert shuffled.gap > 0.5
    assert shuffled.optimal == pytest.approx(A.transport_gap(start, flow).cost)
    with pytest.raises(ValueError, match="as many of the one as of the other, not 3 and 2"):
        A.transport_gap(start[:3], flow[:2])
    with pytest.raises(ValueError, match="steps: options are for a denoiser"):
        A.transport_gap(start, flow, steps=3)
    with pytest.raises(ValueError, match="path = 'line' is not one"):
        A.gaussian_gap(S1, S2, "line")
    with pytest.raises(ValueError, match=r"S1 and S2 must be matrices \(D, D\)"):
        A.gaussian_gap([1.0], [2.0])


def test_sinkhorn_tends_to_the_assignment() -> None:
    """To 0: the assignment of scipy. To infinity: the product, and the mean of all costs."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((12, 2)), rng.standard_normal((12, 2)) + 0.5
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    rows, columns = linear_sum_assignment(cost)
    least = cost[rows, columns].mean()
    gaps = []
    for eps in (0.4, 0.1, 0.001):
        found = A.sinkhorn(x, y, eps)
        assert found.converged
        assert found.error < 1e-9
        assert found.iterations < 200
        np.testing.assert_allclose(found.plan.sum(1), 1 / 12, atol=1e-9)
        gaps.append(found.cost - least)
        assert -1e-9 < gaps[-1] < eps * math.log(12)
        assert 0 < found.value - least < eps * math.log(12) + 1e-9
    assert gaps[2] < gaps[1] < gaps[0]
    assert gaps[2] < 1e-5
    assert (found.plan.argmax(1).numpy() == columns).all()
    large = A.sinkhorn(x, y, 1e6)
    np.testing.assert_allclose(large.plan, 1 / 144, rtol=1e-4)
    assert large.cost == pytest.approx(cost.mean(), rel=1e-4)
    few = A.sinkhorn(x, y, 0.1, max_iterations=15)
    assert not few.converged
    assert few.error > 1e-9
    assert few.iterations == 15


def test_sinkhorn_of_two_points() -> None:
    """Two points each: P = [[p, q], [q, p]] with p/q = exp((c_off - c_on) / eps); weights; bad input."""
    eps = 0.7
    found = A.sinkhorn([0.0, 1.0], [0.0, 1.0], eps, tol=1e-13)
    ratio = math.exp(1 / eps)
    np.testing.assert_allclose(found.plan, np.array([[ratio, 1], [1, ratio]]) / (2 + 2 * ratio), rtol=1e-12)
    p = ratio / (1 + ratio)
    value = (1 - p) + eps * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert found.value == pytest.approx(value, rel=1e-12)
    weighted = A.sinkhorn([0.0, 1.0, 3.0], [0.0, 2.0], 0.3, a=[0.5, 0.3, 0.2], b=[0.9, 0.1])
    np.testing.assert_allclose(weighted.plan.sum(1), [0.5, 0.3, 0.2], atol=1e-9)
    np.testing.assert_allclose(weighted.plan.sum(0), [0.9, 0.1], atol=1e-12)
    one = A.sinkhorn([[1.0]], [[3.0]], 1e-3)
    assert one.cost == 4
    assert one.converged
    for change, message in (
        ({"eps": 0.0}, "eps = 0.0 must be a positive number"),
        ({"eps": 1.0, "a": [0.5, 0.4]}, "a must be 2 positive weights with sum 1"),
        ({"eps": 1.0, "tol": -1.0}, "tol = -1.0 must be"),
        ({"eps": 1.0, "max_iterations": 0}, "max_iterations = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            A.sinkhorn([0.0, 1.0], [0.0, 1.0], **change)


@pytest.mark.parametrize("eps", [0.05, 0.5, 3.0])
def test_bridge_in_one_dimension_is_sinkhorn_at_twice_eps(eps: float) -> None:
    """On a fine grid, with the weights of the densities; and the closed form of one dimension."""
    s1, s2 = 0.8, 1.3
    found = A.schroedinger_bridge(0.0, s1**2, 0.0, s2**2, eps).coupling.item()
    assert found == pytest.approx((-eps + math.sqrt(eps**2 + 4 * s1**2 * s2**2)) / 2, rel=1e-13)
    x = np.linspace(-6, 6, 161)
    a, b = (np.exp(-x * x / (2 * s * s)) for s in (s1, s2))
    plan = A.sinkhorn(x, x, 2 * eps, a=a / a.sum(), b=b / b.sum(), tol=1e-6).plan.numpy()
    assert (plan * x[:, None] * x[None]).sum() == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("eps", [1e-6, 0.4, 1e6])
def test_bridge_is_the_one_of_its_reference(eps: float) -> None:
    """Its joint density is f(x) g(y) exp(-|x - y|^2 / (2 eps)) with the right marginals, which only one has: the block
    of the precision off the diagonal is -1/eps."""
    found = A.schroedinger_bridge(M1, S1, M2, S2, eps)
    if eps > 1e-3:
        precision = torch.linalg.inv(found.joint)
        torch.testing.assert_close(precision[:3, 3:] * eps, -EYE, rtol=1e-6, atol=1e-6)
    best = S1 @ A.gaussian_transport(M1, S1, M2, S2).matrix
    limit = best if eps < 1 else S1 @ S2 / eps
    if eps != 0.4:
        torch.testing.assert_close(found.coupling, limit, rtol=1e-4, atol=1e-6 if eps < 1 else 1e-12)
    assert torch.linalg.eigvalsh(found.joint).amin() > -1e-9


def test_bridge_is_markov_with_its_drift() -> None:
    """Moments along dx = (K (x - mean) + c) dt + sqrt(eps) dw are its marginals, from S1 to S2."""
    eps = 0.4
    found = A.schroedinger_bridge(M1, S1, M2, S2, eps)

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        k, cov = found.drift(t)[0].numpy(), flat.reshape(3, 3)
        return (k @ cov + cov @ k.T + eps * np.eye(3)).ravel()

    solved = solve_ivp(slope, (0, 0.999), S1.numpy().ravel(), rtol=1e-9, atol=1e-10, t_eval=[0.3, 0.999])
    for t, flat in zip(solved.t, solved.y.T, strict=True):
        np.testing.assert_allclose(flat.reshape(3, 3), found.marginal(t)[1], rtol=1e-5, atol=1e-6)
    for t, (m, s) in ((0.0, (M1, S1)), (1.0, (M2, S2))):
        torch.testing.assert_close(found.marginal(t)[0], m)
        torch.testing.assert_close(found.marginal(t)[1], s)
    torch.testing.assert_close(found.drift(0.5)[1], M2 - M1)


def test_bridge_from_a_point() -> None:
    """From and to points it is the Brownian bridge; bad input."""
    found = A.schroedinger_bridge([1.0, 0.0], 0.0, [0.0, 2.0], 0.0, 0.3)
    mean, cov = found.marginal(0.25)
    torch.testing.assert_close(mean, torch.tensor([0.75, 0.5], dtype=torch.float64))
    torch.testing.assert_close(cov, 0.3 * 0.25 * 0.75 * torch.eye(2, dtype=torch.float64))
    assert found.cost == pytest.approx(5)
    with pytest.raises(ValueError, match="without noise it is gaussian_transport"):
        A.schroedinger_bridge(0.0, 1.0, 0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"time = 1.5 must be from 0 to 1"):
        found.marginal(1.5)
    with pytest.raises(ValueError, match="below 1, where the bridge ends"):
        found.drift(1.0)
