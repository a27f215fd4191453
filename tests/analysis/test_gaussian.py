"""Gaussian data against integrals, linear algebra and an independent integrator."""

from concurrent.futures import ThreadPoolExecutor

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import sqrtm

import logsnr
from logsnr.analysis.gaussian import Gaussian

F64 = torch.float64
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.3, 0.0], [-0.2, 0.4, 0.05]], dtype=F64)
FULL = ROOT @ ROOT.mT
LEVELS = [(1.0, 0.0), (0.0, 1.0), (0.6, 0.8), (1.0, 80.0), (0.999, 1e-3)]


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-13) -> None:
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (1.0, 3.0), (0.05, 0.9), (0.99, 0.1)])
@pytest.mark.parametrize("x", [-3.0, 0.2, 8.0])
def test_posterior_is_the_integral(alpha: float, sigma: float, x: float) -> None:
    """E[x0 | x] and E[eps | x] are the integrals over x0 that Bayes' rule says, to 1e-13."""
    mean, var = 0.7, 0.25
    centre = mean + alpha * var / (alpha**2 * var + sigma**2) * (x - alpha * mean)
    width = (1 / var + alpha**2 / sigma**2) ** -0.5
    span = [centre + k * width for k in (-14, -6, -3, 0, 3, 6, 14)]

    def joint(u: mp.mpf) -> mp.mpf:
        return mp.exp(-((u - mean) ** 2) / (2 * mp.mpf(var)) - (x - alpha * u) ** 2 / (2 * mp.mpf(sigma) ** 2))

    with mp.workdps(30):
        posterior_mean = mp.quad(lambda u: u * joint(u), span) / mp.quad(joint, span)
    x0, eps = Gaussian(mean, var).posterior(torch.tensor([x], dtype=F64), alpha, sigma)
    assert x0.item() == pytest.approx(float(posterior_mean), rel=1e-13)
    assert eps.item() == pytest.approx(float((x - alpha * posterior_mean) / sigma), rel=1e-12)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_full_covariance_posterior_is_the_regression(alpha: float, sigma: float) -> None:
    """With a full covariance the posterior means are the linear regressions of x0 and eps on x."""
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    x = torch.randn(5, 3, dtype=F64)
    marginal = alpha**2 * FULL + sigma**2 * torch.eye(3, dtype=F64)
    d = torch.linalg.solve(marginal, (x - alpha * mean).mT).mT
    x0, eps = Gaussian(mean, FULL).posterior(x, alpha, sigma)
    close(x0, mean + alpha * d @ FULL, 1e-11)
    close(eps, sigma * d, 1e-9)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_forms_of_the_covariance_agree(alpha: float, sigma: float) -> None:
    """A number, equal variances and a multiple of the identity are one problem; so are diagonal and full."""
    x, mean = torch.randn(4, 2, 2, dtype=F64), torch.randn(2, 2, dtype=F64)
    var = torch.tensor([[0.1, 2.0], [0.5, 1.0]], dtype=F64)
    pairs = [(0.3, torch.full((2, 2), 0.3)), (0.3, 0.3 * torch.eye(4)), (var, torch.diag(var.flatten()))]
    for one, other in pairs:
        for a, b in zip(*(Gaussian(mean, c).posterior(x, alpha, sigma) for c in (one, other)), strict=True):
            close(a, b, 1e-7 if isinstance(one, float) else 1e-13)  # torch.full is float32: 0.3 is rounded
    scalar, shaped = Gaussian(0.2, 0.3), Gaussian(torch.full((2, 2), 0.2, dtype=F64), 0.3)
    close(scalar.posterior(x, alpha, sigma)[0], shaped.posterior(x, alpha, sigma)[0])


def test_tweedie() -> None:
    """-eps / sigma is the gradient of the log-density of the marginal."""
    p, sch, t = Gaussian([1.0, -2.0, 0.5], FULL), logsnr.VPCosine(), 0.3
    x = torch.randn(3, dtype=F64, requires_grad=True)
    mean, cov = p.marginal(sch, t)
    torch.distributions.MultivariateNormal(mean, cov).log_prob(x).backward()
    eps = p.posterior(x.detach(), sch.alpha(t), sch.sigma(t))[1]
    close(x.grad, -eps / sch.sigma(t), 1e-12)


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.SubVP(), logsnr.VE(), logsnr.FlowMatching()], ids=repr)
def test_flow_solves_the_ode(sch: logsnr.Schedule) -> None:
    """flow is the solution of dx/dt = f x - g^2 / 2 score, integrated in t, to 1e-9; reference is flow."""
    p, s, t = Gaussian([1.0, -2.0, 0.5], FULL), 0.8, 0.05
    x = torch.randn(3, dtype=F64)

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        mean, cov = p.marginal(sch, u)
        score = -np.linalg.solve(cov.numpy(), y - mean.numpy())
        return sch.drift(u) * y - sch.diffusion2(u) / 2 * score

    y = solve_ivp(slope, (s, t), x.numpy(), method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    close(p.flow(x, sch, s, t), torch.from_numpy(y), 1e-9)
    assert torch.equal(p.reference(x, sch, s, t), p.flow(x, sch, s, t))
    assert p.reference(x.float(), sch, s, t).dtype == F64
    assert p.flow(x.float(), sch, s, t).dtype == torch.float32


def test_flow_between_infinite_ends() -> None:
    """From pure noise to clean data the flow is x -> mean + cov^{1/2} x, and back its inverse."""
    p, sch, x = Gaussian([1.0, -2.0, 0.5], FULL), logsnr.FlowMatching(), torch.randn(6, 3, dtype=F64)
    y = p.flow(x, sch, 1.0, 0.0)
    values, vectors = torch.linalg.eigh(FULL)
    close(y, p.mean + x @ (vectors * values.sqrt()) @ vectors.mT)
    close(p.flow(y, sch, 0.0, 1.0), x, 1e-11)


def test_marginal_keeps_the_form_of_cov() -> None:
    """marginal gives alpha mean and alpha^2 cov + sigma^2 as a number, variances or a matrix, as cov was."""
    sch, t = logsnr.Trigonometric(), 0.7
    a2, s2 = np.cos(t) ** 2, np.sin(t) ** 2
    assert Gaussian(2.0, 0.5).marginal(sch, t)[1].item() == pytest.approx(a2 * 0.5 + s2)
    close(Gaussian(0.0, 0.5).marginal(sch, t)[0], torch.tensor(0.0, dtype=F64))
    cov = Gaussian([0.0, 1.0], [0.5, 2.0]).marginal(sch, t)[1]
    close(cov, torch.tensor([a2 * 0.5 + s2, a2 * 2 + s2], dtype=F64))
    close(Gaussian([0.0] * 3, FULL).marginal(sch, t)[1], a2 * FULL + s2 * torch.eye(3, dtype=F64))


def test_directions_without_variance() -> None:
    """A singular covariance has a finite posterior at sigma = 0, and no flow that starts there."""
    p = Gaussian([1.0, 2.0], [0.0, 1.0])
    x0, eps = p.posterior(torch.tensor([[5.0, 5.0]], dtype=F64), 1.0, 0.0)
    assert torch.equal(x0, torch.tensor([[1.0, 5.0]], dtype=F64))
    assert torch.equal(eps, torch.zeros(1, 2, dtype=F64))
    sch = logsnr.FlowMatching()
    assert torch.equal(p.flow(torch.randn(3, 2, dtype=F64), sch, 1.0, 0.0)[:, 0], torch.ones(3, dtype=F64))
    with pytest.raises(ValueError, match=r"at s = 0.0 the marginal covariance is singular"):
        p.flow(torch.zeros(1, 2), sch, 0.0, 1.0)


def test_samples_have_the_moments() -> None:
    """40,000 samples have the moments within five standard errors, and repeat with the generator."""
    p, n = Gaussian([1.0, -2.0, 0.5], FULL), 40_000
    x = p.sample(n, generator=torch.Generator().manual_seed(1))
    assert x.shape == (n, 3)
    scale = FULL.diagonal().sqrt()
    assert ((x.mean(0) - p.mean).abs() < 5 * scale / n**0.5).all()
    assert ((x.mT.cov() - FULL).abs() < 5 * 2**0.5 * torch.outer(scale, scale) / n**0.5).all()
    assert torch.equal(x, p.sample(n, generator=torch.Generator().manual_seed(1)))
    assert Gaussian(0.0, 1.0).sample(7).shape == (7,)


def test_samples_are_by_the_symmetric_root() -> None:
    """They are m + C^(1/2) z, of which no eigenvectors that a machine may choose are a part."""
    g = torch.Generator().manual_seed(3)
    x = Gaussian([1.0, -2.0, 0.5], FULL).sample(4, generator=g)
    z = torch.randn(4, 3, dtype=F64, generator=g.manual_seed(3))
    close(x, torch.tensor([1.0, -2.0, 0.5], dtype=F64) + z @ torch.from_numpy(sqrtm(FULL.numpy())))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_denoiser_in_every_dtype(dtype: torch.dtype) -> None:
    """The denoiser rounds the float64 posterior once to x's dtype, with one time per sample."""
    p, sch = Gaussian([1.0, -2.0, 0.5], FULL), logsnr.VPLinear()
    x, t = torch.randn(4, 3).to(dtype), torch.tensor([0.001, 0.3, 0.6, 1.0], dtype=F64)
    one_by_one = zip(x.double().split(1), t.tolist(), strict=True)
    want = [p.posterior(y, sch.alpha(u), sch.sigma(u))[0] for y, u in one_by_one]
    got = p.denoiser(sch).x0(x, t)
    assert got.dtype == dtype
    torch.testing.assert_close(got, torch.cat(want).to(dtype), rtol=1e-14 if dtype is F64 else 0, atol=0)


def test_denoiser_under_transforms_and_threads() -> None:
    """The model works under vmap and jvp, whose derivative is alpha cov / sigma^2, and from many threads."""
    p, sch = Gaussian([1.0, -2.0, 0.5], FULL), logsnr.VPLinear()
    model, x, t = p.denoiser(sch).model, torch.randn(4, 3, dtype=F64), torch.full((4,), 0.3, dtype=F64)
    close(torch.func.vmap(model)(x, t), model(x, t))
    jacobian = torch.func.jacfwd(lambda y: p.posterior(y, 0.6, 0.8)[0])(x[0])
    marginal = 0.36 * FULL + 0.64 * torch.eye(3, dtype=F64)
    close(jacobian, 0.6 * torch.linalg.solve(marginal, FULL), 1e-12)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(y, model(x, t)) for y in pool.map(lambda _: model(x, t), range(16)))


@pytest.mark.parametrize(
    ("mean", "cov", "message"),
    [
        (0.0, -1.0, "cov must not be negative, but holds -1"),
        ([0.0, 0.0], [1.0, 2.0, 3.0], r"cov has shape \(3,\); for a mean of shape \(2,\)"),
        (0.0, [1.0, 2.0], r"for a mean of shape \(\)"),
        (
            [0.0, 0.0],
            [[1.0, 0.5], [0.4, 1.0]],
            "cov must be symmetric, but differs from its transpose by 0.1",
        ),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], "positive semidefinite, but has the eigenvalue -1"),
        ([0.0, float("nan")], 1.0, "mean must be finite, but holds nan"),
    ],
)
def test_bad_parameters_are_refused(mean: object, cov: object, message: str) -> None:
    """What is no mean or covariance raises ValueError with the argument and its shape or value."""
    with pytest.raises(ValueError, match=message):
        Gaussian(mean, cov)


def test_wrong_state_shape_and_mutation_are_refused() -> None:
    """A state that does not end in the event shape raises ValueError, and fields cannot be reassigned."""
    p = Gaussian([0.0, 0.0], 1.0)
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\); it must end in \(2,\)"):
        p.posterior(torch.zeros(4, 3), 1.0, 1.0)
    with pytest.raises(AttributeError):
        p.mean = torch.zeros(2)  # type: ignore[misc]
    assert repr(p) == "Gaussian(event_shape=(2,))"


@pytest.mark.parametrize("prediction", ["x0", "eps", "v", "velocity", "score"])
def test_denoiser_on_a_clock_that_runs_back(prediction: str) -> None:
    """The network of FlowMatching(data_at=1) is told 1 - t and its velocity is x0 - eps: heads and runs are those of
    data_at=0, and a wrapped network with that convention answers the same."""
    data, back, x = Gaussian([0.5, -1.0], [0.3, 2.0]), logsnr.FlowMatching(data_at=1), torch.ones(3, 2, dtype=F64)
    one, other = data.denoiser(back, prediction), data.denoiser(logsnr.FlowMatching(), prediction)
    for head in ("x0", "eps", "velocity"):
        close(one.head(head, x, 0.7), other.head(head, x, 0.7))
    close(one.x0(x, 0.7), data.posterior(x, 0.3, 0.7)[0])
    found = logsnr.sample(one, x, solver="dpmpp-2m", steps=4, t_start=0.9, t_end=0.1)
    close(found, logsnr.sample(other, x, solver="dpmpp-2m", steps=4, t_start=0.9, t_end=0.1), 1e-12)
    if prediction == "velocity":
        x0, eps = data.posterior(x, 0.3, 0.7)
        close(one.predict(x, torch.full((3,), 0.7, dtype=F64)), x0 - eps)
