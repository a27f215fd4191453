"""Gaussian mixtures against integrals, torch.distributions, 50-digit quantiles and an integrator."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.mixture import GaussianMixture
from logsnr.analysis.quantile import same_quantile
from logsnr.analysis.reference import reference_flow

F64 = torch.float64
ONE_D = GaussianMixture([-1.0, 0.5, 2.0], [0.04, 0.25, 0.01], [0.2, 0.5, 0.3])
ROOT = torch.tensor([[1.0, 0.0], [0.5, 0.3]], dtype=F64)
COVS = torch.stack([ROOT @ ROOT.mT, 0.1 * torch.eye(2, dtype=F64), ROOT.mT @ ROOT])
TWO_D = GaussianMixture([[0.0, 1.0], [2.0, -1.0], [-1.0, -1.0]], COVS, [0.5, 0.3, 0.2])


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-13) -> None:
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize(
    ("alpha", "sigma", "x"), [(0.6, 0.8, -3.0), (1.0, 3.0, 0.2), (0.05, 0.9, 1.31), (0.99, 0.1, 0.2), (0.99, 0.1, 1.31)]
)
def test_posterior_is_the_integral(alpha: float, sigma: float, x: float) -> None:
    """E[x0 | x] and E[eps | x] are the integrals over x0 that Bayes' rule says, to 1e-12."""
    parts = list(zip(ONE_D.weights.tolist(), ONE_D.means.tolist(), ONE_D.covs.tolist(), strict=True))

    def joint(u: mp.mpf) -> mp.mpf:
        prior = sum(w / mp.sqrt(c) * mp.exp(-((u - m) ** 2) / (2 * c)) for w, m, c in parts)
        return prior * mp.exp(-((x - alpha * u) ** 2) / (2 * sigma**2))

    span = [-7, -3, -2, -1, 0, 0.5, 1, 1.5, 1.8, 2, 2.2, 3, 7]
    with mp.workdps(25):  # both integrals in one pass
        both = mp.quad(lambda u: joint(u) * mp.mpc(1, u), span, method="gauss-legendre")
    mean = both.imag / both.real
    x0, eps = ONE_D.posterior(torch.tensor([x], dtype=F64), alpha, sigma)
    assert x0.item() == pytest.approx(float(mean), rel=1e-12)
    assert eps.item() == pytest.approx(float((x - alpha * mean) / sigma), rel=1e-12)


@pytest.mark.parametrize("problem", [TWO_D, GaussianMixture(TWO_D.means, COVS.diagonal(dim1=1, dim2=2))])
@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (0.98, 0.05), (1.0, 20.0)])
def test_tweedie(problem: GaussianMixture, alpha: float, sigma: float) -> None:
    """eps = -sigma score and x0 = (x + sigma^2 score) / alpha for torch.distributions' marginal density."""
    x = (2 * torch.randn(8, 2, dtype=F64)).requires_grad_()
    covs = problem.covs if problem.covs.ndim == 3 else torch.diag_embed(problem.covs)
    marginal = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(problem.weights),
        torch.distributions.MultivariateNormal(
            alpha * problem.means, alpha**2 * covs + sigma**2 * torch.eye(2, dtype=F64)
        ),
    )
    (score,) = torch.autograd.grad(marginal.log_prob(x).sum(), x)
    x0, eps = problem.posterior(x.detach(), alpha, sigma)
    close(eps, -sigma * score, 1e-11)
    close(x0, (x.detach() + sigma**2 * score) / alpha, 1e-10)


def test_one_component_is_gaussian() -> None:
    """A mixture of one, or of equal components, is the Gaussian, at both infinite ends too."""
    x = torch.randn(5, 2, dtype=F64)
    gaussian = Gaussian([1.0, -1.0], COVS[0])
    for k in (1, 3):
        mixture = GaussianMixture([[1.0, -1.0]] * k, COVS[:1].expand(k, 2, 2))
        for alpha, sigma in [(1.0, 0.0), (0.0, 1.0), (0.6, 0.8)]:
            for a, b in zip(*(p.posterior(x, alpha, sigma) for p in (mixture, gaussian)), strict=True):
                close(a, b, 1e-12)


def test_forms_of_the_covariances_agree() -> None:
    """A number, one per component, variances and matrices describe the same mixture."""
    means, x = torch.randn(3, 2, 2, dtype=F64), torch.randn(4, 2, 2, dtype=F64)
    eye = torch.eye(4, dtype=F64)
    forms = [0.5, [0.5] * 3, torch.full((3, 2, 2), 0.5), 0.5 * eye.expand(3, 4, 4)]
    answers = [GaussianMixture(means, covs).posterior(x, 0.6, 0.8)[0] for covs in forms]
    for answer in answers[1:]:
        close(answer, answers[0])


def test_coordinates_of_a_scalar_mixture_are_independent() -> None:
    """Means of shape (K,) act on each coordinate of a state of any shape, with per-sample levels."""
    x = torch.randn(3, 2, 2, dtype=F64)
    alpha, sigma = torch.tensor([1.0, 0.6, 0.0]), torch.tensor([0.0, 0.8, 1.0])
    x0, eps = ONE_D.posterior(x, alpha, sigma)
    for i in range(3):
        one = ONE_D.posterior(x[i].flatten(), alpha[i].item(), sigma[i].item())
        close(x0[i].flatten(), one[0])
        close(eps[i].flatten(), one[1])
    close(x0[2], torch.full((2, 2), -0.2 + 0.25 + 0.6, dtype=F64))  # without data: the mean
    close(x0[0], x[0])  # without noise: x itself
    assert (eps[0] == 0).all()


def cdf(x: float, alpha: float, sigma: float, *, upper: bool) -> mp.mpf:
    """The distribution function of ONE_D's marginal, or one minus it, in 50 digits."""
    sign = -1 if upper else 1
    return mp.fsum(
        mp.mpf(w)
        * mp.ncdf(sign * (mp.mpf(x) - mp.mpf(alpha) * m) / mp.sqrt(mp.mpf(alpha) ** 2 * c + mp.mpf(sigma) ** 2))
        for w, m, c in zip(ONE_D.weights.tolist(), ONE_D.means.tolist(), ONE_D.covs.tolist(), strict=True)
    )


@pytest.mark.parametrize("x", [-60.0, -9.0, -1.0, 0.0, 0.01, 1.0, 8.0, 60.0])
def test_reference_keeps_the_quantile(x: float) -> None:
    """Up to 60 standard deviations out, the endpoint has the start's quantile in 50 digits, to 1e-13."""
    sch, s, t = logsnr.VPLinear(), 1.0, 1e-3
    y = ONE_D.reference(torch.tensor([x], dtype=F64), sch, s, t).item()
    levels = [(sch.alpha(u), sch.sigma(u)) for u in (s, t)]
    start = cdf(x, *levels[0], upper=x > 0)
    step = mp.mpf(1e-13) * max(1, abs(y))
    low, high = (cdf(float(y + sign * step), *levels[1], upper=x > 0) for sign in (-1, 1))
    assert min(low, high) < start < max(low, high)


def test_reference_in_a_gap_between_components() -> None:
    """Where F is constant to rounding between two far components, the flow is still exact to 1e-12."""
    p = GaussianMixture([-1.0, 1.0], 1e-4, [0.3, 0.7])
    sch, s, t = logsnr.EDM(), 0.05, 0.02
    x = torch.tensor([-0.3, -0.01, 0.02, 0.4], dtype=F64)
    y = p.reference(x, sch, s, t)
    close(y, reference_flow(p, x, sch, s, t, tol=1e-12).x, 1e-11)
    widths = [math.sqrt(1e-4 + u * u) for u in (s, t)]
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        masses = [
            mp.mpf("0.7") * mp.ncdf((mp.mpf(v) - 1) / w) - mp.mpf("0.3") * mp.ncdf((-mp.mpf(v) - 1) / w)
            for v, w in zip((a, b), widths, strict=True)
        ]
        density = sum(w * mp.npdf((mp.mpf(b) - m) / widths[1]) for w, m in ((0.3, -1), (0.7, 1))) / widths[1]
        assert abs((masses[1] - masses[0]) / density) < 1e-12


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM()], ids=repr)
def test_reference_agrees_with_the_integrator(sch: logsnr.Schedule) -> None:
    """The quantile answer is the PF-ODE's endpoint found by DOP853, within that one's error."""
    x = sch.sigma(sch.t_start) * torch.linspace(-3, 3, 24, dtype=F64).reshape(4, 3, 2)
    exact = ONE_D.reference(x, sch, sch.t_start, sch.t_end)
    integrated = reference_flow(ONE_D, x, sch, sch.t_start, sch.t_end)
    assert exact.shape == x.shape
    assert integrated.error < 1e-10
    close(integrated.x, exact, 1e-10)


def test_reference_is_a_flow() -> None:
    """s to u to t is s to t, s to t and back the identity, s to s too, and order is kept; ends included."""
    sch, x = logsnr.FlowMatching(), torch.linspace(-4, 4, 41, dtype=F64)
    y = ONE_D.reference(x, sch, 1.0, 0.0)
    assert (y.diff() > 0).all()
    close(ONE_D.reference(ONE_D.reference(x, sch, 1.0, 0.4), sch, 0.4, 0.0), y, 1e-12)
    close(ONE_D.reference(y, sch, 0.0, 1.0), x, 1e-12)
    close(ONE_D.reference(x, sch, 0.5, 0.5), x)


def test_reference_of_the_mirror_image() -> None:
    """Mirroring the mixture and the states mirrors the flow, exactly as far as rounding goes."""
    mirror = GaussianMixture(-ONE_D.means, ONE_D.covs, ONE_D.weights)
    sch, x = logsnr.VPLinear(), torch.linspace(-9, 9, 31, dtype=F64)
    close(mirror.reference(-x, sch, 1.0, 0.01), -ONE_D.reference(x, sch, 1.0, 0.01), 2e-14)


def test_quantiles_ignore_components_without_weight() -> None:
    """A component of weight 0 changes nothing, and a single component is mapped linearly."""
    m, r, x = np.array([1.0, -5.0]), np.array([0.5, 2.0]), np.array([-8.0, 0.0, 1.0, 9.0])
    y = same_quantile(x, np.array([1.0, 0.0]), (m, r), (2 * m, 3 * r))
    np.testing.assert_allclose(y, 2 + 3 * (x - 1), rtol=1e-13, atol=1e-13)


def test_reference_in_two_dimensions_is_a_flow() -> None:
    """With an event shape the reference is integrated: there and back again is the identity to 1e-8."""
    sch, x = logsnr.VPLinear(), torch.randn(3, 2, dtype=F64)
    y = TWO_D.reference(x, sch, 1.0, 0.1)
    close(TWO_D.reference(y, sch, 0.1, 1.0), x, 1e-8)


def test_samples_have_the_moments() -> None:
    """40,000 samples have the mixture's mean and covariance within five standard errors."""
    n = 40_000
    x = TWO_D.sample(n, generator=torch.Generator().manual_seed(2))
    mean = TWO_D.weights @ TWO_D.means
    centred = TWO_D.means - mean
    cov = torch.einsum("k,kij->ij", TWO_D.weights, COVS) + centred.mT @ (TWO_D.weights[:, None] * centred)
    scale = cov.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * scale / n**0.5).all()
    assert ((x.mT.cov() - cov).abs() < 5 * 2**0.5 * torch.outer(scale, scale) / n**0.5).all()
    assert ONE_D.sample(7).shape == (7,)


def test_samples_are_by_the_symmetric_root() -> None:
    """They are m_k + C_k^(1/2) z, of which no eigenvectors that a machine may choose are a part."""
    g = torch.Generator().manual_seed(3)
    x = TWO_D.sample(9, generator=g)
    k = torch.multinomial(TWO_D.weights, 9, replacement=True, generator=g.manual_seed(3))
    z = torch.randn(9, 2, dtype=F64, generator=g)
    roots = torch.stack([torch.from_numpy(sqrtm(cov.numpy())) for cov in COVS])
    close(x, TWO_D.means[k] + torch.einsum("nij,nj->ni", roots[k], z))


def test_denoiser_under_transforms() -> None:
    """The model works under vmap, and in half precision answers in the state's dtype."""
    model = TWO_D.denoiser(logsnr.VPLinear()).model
    x, t = torch.randn(4, 2, dtype=F64), torch.tensor([1e-3, 0.2, 0.7, 1.0], dtype=F64)
    close(torch.func.vmap(model)(x, t), model(x, t))
    assert TWO_D.denoiser(logsnr.VPLinear()).x0(x.half(), t).dtype == torch.float16


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.SubVP(), logsnr.EDM()], ids=repr)
def test_denoiser_of_every_head(sch: logsnr.Schedule) -> None:
    """As networks, the heads are the score of the density, the slope of the exact flow, and what follows."""
    x, t = torch.tensor([-0.7, 0.2, 1.6], dtype=F64), float(sch.time(0.3))
    times, alpha, sigma = torch.full((3,), t, dtype=F64), sch.alpha(t), sch.sigma(t)
    got = {head: ONE_D.denoiser(sch, head).model(x, times) for head in ("x0", "eps", "v", "velocity", "score")}
    y, widths = x.clone().requires_grad_(), torch.sqrt(alpha**2 * ONE_D.covs + sigma**2)
    parts = torch.distributions.Normal(alpha * ONE_D.means, widths)
    density = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(ONE_D.weights), parts)
    (score,) = torch.autograd.grad(density.log_prob(y).sum(), y)
    d = 1e-5 * t
    flow = (ONE_D.reference(x, sch, t, t + d) - ONE_D.reference(x, sch, t, t - d)) / (2 * d)
    close(got["score"], score, 1e-12)
    close(got["velocity"], flow, 1e-8)
    close(got["eps"], -sigma * score, 1e-12)
    close(got["x0"], (x + sigma**2 * score) / alpha, 1e-12)
    close(got["v"], alpha * got["eps"] - sigma * got["x0"])


@pytest.mark.parametrize("head", ["x0", "eps", "v", "velocity", "score"])
def test_heads_keep_their_digits_near_the_ends(head: str) -> None:
    """With hardly any noise and with hardly any data each head is the 50-digit combination, to 1e-13."""
    p, sch, x = GaussianMixture([0.4], [0.09]), logsnr.FlowMatching(), torch.tensor([0.35], dtype=F64)
    for t in (1e-9, 1 - 1e-9):
        a, s, y = 1 - mp.mpf(t), mp.mpf(t), mp.mpf(x.item())
        c, m = mp.mpf(p.covs.item()), mp.mpf(p.means.item())
        d = (y - a * m) / (a**2 * c + s**2)
        x0, eps = m + a * c * d, s * d
        want = {"x0": x0, "eps": eps, "v": a * eps - s * x0, "velocity": eps - x0, "score": -eps / s}[head]
        got = p.denoiser(sch, head).model(x, torch.tensor([t], dtype=F64)).item()
        assert got == pytest.approx(float(want), rel=1e-13)


def test_denoiser_refuses_unknown_heads() -> None:
    """A name that is not a head raises ValueError at once."""
    with pytest.raises(ValueError, match="prediction = 'epsilon' is not a head"):
        ONE_D.denoiser(logsnr.VPLinear(), "epsilon")


@pytest.mark.parametrize(
    ("means", "covs", "weights", "message"),
    [
        (1.0, 1.0, None, r"means has shape \(\); it must be \(K, \*event\)"),
        ([0.0, 1.0], [1.0, 2.0, 3.0], None, r"covs has shape \(3,\); for means of shape \(2,\)"),
        ([0.0, 1.0], [1.0, 0.0], None, "covs must be positive definite, but has the eigenvalue 0"),
        ([[0.0, 1.0]], [[[1.0, 2.0], [2.0, 1.0]]], None, "positive semidefinite, but has the eigenvalue -1"),
        ([[0.0, 1.0]], [[[1.0, 0.2], [0.0, 1.0]]], None, "covs must be symmetric"),
        ([0.0, 1.0], 1.0, [0.5, 0.3, 0.2], r"weights has shape \(3,\); for 2 means it must be \(2,\)"),
        ([0.0, 1.0], 1.0, [-0.5, 1.5], "weights must not be negative, but holds -0.5"),
        ([0.0, 1.0], 1.0, [0.5, 0.6], "weights must sum to 1, but sum to 1.1"),
        ([0.0, math.inf], 1.0, None, "means must be finite"),
    ],
)
def test_bad_parameters_are_refused(means: object, covs: object, weights: object, message: str) -> None:
    """What is no mixture raises ValueError with the argument, its shape or value, and what would be right."""
    with pytest.raises(ValueError, match=message):
        GaussianMixture(means, covs, weights)
