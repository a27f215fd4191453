"""Log-likelihoods along the flow, against densities that are known."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis
from logsnr.analysis import likelihood_path
from logsnr.analysis.divergence import Exact
from logsnr.bench.problems import random_mixture

SCH = logsnr.VPLinear()
MEAN, VARIANCE = np.array([0.5, -1.0, 0.0]), np.array([0.3, 1.0, 2.0])
GAUSSIAN = analysis.Gaussian(MEAN, VARIANCE)
GAUSSIAN_1D = analysis.Gaussian(-1.0, 1.0)
X = GAUSSIAN.sample_at(SCH, SCH.t_end, 64, generator=torch.Generator().manual_seed(0))


def normal(x: torch.Tensor, t: float, sch: logsnr.Schedule = SCH) -> torch.Tensor:
    """The exact log-density of the marginal at t."""
    alpha, sigma = float(sch.alpha(t)), float(sch.sigma(t))
    spread = torch.from_numpy(alpha**2 * VARIANCE + sigma**2)
    return (-0.5 * (x - alpha * torch.from_numpy(MEAN)) ** 2 / spread - 0.5 * (2 * math.pi * spread).log()).sum(1)


@pytest.mark.parametrize(("prediction", "steps", "tol"), [("x0", 40, 1e-9), ("eps", 20, 1e-6), ("v", 20, 1e-6)])
def test_gaussians(prediction: str, steps: int, tol: float) -> None:
    """With the exact law at the start; pure noise in its place costs little."""
    den = GAUSSIAN.denoiser(SCH, prediction)
    found = analysis.log_likelihood(den, X, steps=steps, prior=lambda x: normal(x, SCH.t_start))
    torch.testing.assert_close(found.value, normal(X, SCH.t_end), rtol=0, atol=tol)
    assert not found.error.any()
    plain = analysis.log_likelihood(den, X, steps=10)
    torch.testing.assert_close(plain.value, found.value, rtol=0, atol=0.05)
    assert found.nfe == 7 * steps + 1
    bits = found.bits_per_dimension(7.0)
    torch.testing.assert_close(bits, 7 - found.value / (3 * math.log(2)))


def density(data: analysis.GaussianMixture, sch: logsnr.Schedule, t: float, x: torch.Tensor) -> torch.Tensor:
    """The exact log-density of a mixture's marginal at t; diagonal covariances."""
    alpha, sigma, flat = float(sch.alpha(t)), float(sch.sigma(t)), x.reshape(len(x), 1, -1)
    spread = alpha**2 * data.covs.reshape(len(data.means), -1) + sigma**2
    miss = flat - alpha * data.means.reshape(len(data.means), -1)
    each = -0.5 * (miss**2 / spread + (2 * math.pi * spread).log()).expand_as(miss).sum(2)
    return torch.logsumexp(each + data.weights.log(), 1)


SPANS = [(logsnr.EDM(), 80.0, 0.002), (logsnr.VPLinear(), 1.0, 1e-3), (logsnr.FlowMatching(), 0.999, 0.002)]
DEVIATIONS = (0.02, 0.1, 0.5, 1.0, 4.0, 20.0)


@pytest.mark.parametrize(("sch", "first", "last"), SPANS)
def test_narrow_and_wide_data(sch: logsnr.Schedule, first: float, last: float) -> None:
    """Directions of deviations from 0.02 to 20, in 30 steps, where a run by default has 100."""
    data = analysis.GaussianMixture(torch.zeros(1, 6), torch.tensor(DEVIATIONS, dtype=torch.float64).square()[None])
    x = data.sample_at(sch, last, 8, generator=torch.Generator().manual_seed(0))
    found = analysis.log_likelihood(
        data.denoiser(sch), x, steps=30, t_start=first, t_end=last, prior=lambda z: density(data, sch, first, z)
    )
    torch.testing.assert_close(found.value, density(data, sch, last, x), rtol=0, atol=1e-7)


MIXTURES = (
    analysis.two_gaussians(),
    analysis.GaussianMixture(means=[-1.5, 0.2, 1.0], covs=[0.04, 0.01, 0.0225], weights=[0.3, 0.2, 0.5]),
)


@pytest.mark.parametrize(("sch", "first", "last"), SPANS)
@pytest.mark.parametrize("data", MIXTURES)
def test_mixtures(data: analysis.GaussianMixture, sch: logsnr.Schedule, first: float, last: float) -> None:
    x = data.sample_at(sch, last, 32, generator=torch.Generator().manual_seed(1))
    found = analysis.log_likelihood(
        data.denoiser(sch), x, steps=30, t_start=first, t_end=last, prior=lambda z: density(data, sch, first, z)
    )
    torch.testing.assert_close(found.value, density(data, sch, last, x), rtol=0, atol=1e-5)


def test_a_mixture_of_many_dimensions() -> None:
    """Modes that part within a few tenths of lam: without the score 100 steps are off by 2e-3."""
    sch, data = logsnr.EDM(), random_mixture(8, 5, seed=8)
    x = data.sample_at(sch, 0.002, 8, generator=torch.Generator().manual_seed(1))
    prior = partial(density, data, sch, 80.0)
    found = analysis.log_likelihood(data.denoiser(sch), x, t_start=80.0, t_end=0.002, prior=prior)
    torch.testing.assert_close(found.value, density(data, sch, 0.002, x), rtol=0, atol=1e-6)


def test_the_score_takes_back_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant that does not ask it, or asks for a little of it only, is off by what the path is."""
    sch, found = logsnr.EDM(), []
    data = analysis.GaussianMixture(torch.zeros(1, 1), torch.tensor([[0.02**2]]))
    x = data.sample_at(sch, 0.002, 8, generator=torch.Generator().manual_seed(0))
    right = likelihood_path.Frame.rates
    for share in (1.0, 0.999, 0.0):

        def rates(*args: Any, share: float = share) -> likelihood_path.Rates:
            found = right(*args)
            return found._replace(score=share * found.score)

        monkeypatch.setattr(likelihood_path.Frame, "rates", rates)
        value = analysis.log_likelihood(
            data.denoiser(sch), x, steps=50, t_start=80.0, prior=partial(density, data, sch, 80.0)
        ).value
        found.append(float((value - density(data, sch, 0.002, x)).abs().max()))
    assert found[0] < 1e-10
    assert found[1] > 1e-8
    assert found[2] > 1e-5


def test_a_score_that_is_not_the_flows() -> None:
    """No score has a Jacobian that is not symmetric: the density of such a flow is found all the same, in the order of
    its path, 4."""
    mix = torch.tensor([[0.6, 0.5], [-0.4, 0.3]], dtype=torch.float64)
    den = logsnr.Denoiser(lambda x, t: torch.tanh(x @ mix), SCH, "x0")
    x = 0.1 * logsnr.randn((4, 2), seed=3, dtype=torch.float64)

    def off(steps: int) -> float:
        return float((analysis.log_likelihood(den, x, steps=steps, t_end=0.05).value - exact).abs().max())

    exact = analysis.log_likelihood(den, x, solver="dopri8", rtol=1e-9, atol=1e-9, t_end=0.05).value
    coarse, fine = off(15), off(30)
    assert fine < 1e-3
    assert math.log2(coarse / fine) > 3.7


def test_with_guidance_it_is_that_of_the_guided_flow() -> None:
    """The same as of a model that says the guided answer."""
    answer = lambda x, t, y: torch.tanh(x + y[:, None])  # noqa: E731
    y, none = torch.tensor([0.5, -0.5, 1.0]).double(), torch.zeros(3).double()
    guided = logsnr.Denoiser(answer, SCH, "x0", conditions={"y": y}, guidance=logsnr.Guidance(3.0, uncond={"y": none}))
    alone = logsnr.Denoiser(lambda x, t: 3 * answer(x, t, y) - 2 * answer(x, t, none), SCH, "x0")
    x = 0.3 * logsnr.randn((3, 2), seed=3, dtype=torch.float64)
    one, other = (analysis.log_likelihood(den, x, steps=10, t_end=0.05).value for den in (guided, alone))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("solver", "options", "tol"),
    [
        ("dpmpp-3m", {"steps": 80}, 5e-2),
        ("krogstad", {"steps": 20}, 1e-3),
        ("dopri5", {"rtol": 1e-5, "atol": 1e-5}, 5e-2),
        ("dpm-23", {"rtol": 1e-3, "atol": 1e-3}, 5e-2),
    ],
)
def test_any_solver(solver: str, options: dict[str, Any], tol: float) -> None:
    """The log-density is carried along as more elements of the state, by tables and by steps of their own."""
    x, den = X[:4], GAUSSIAN.denoiser(SCH, "v")
    found = analysis.log_likelihood(den, x, solver=solver, prior=lambda z: normal(z, SCH.t_start), **options)
    torch.testing.assert_close(found.value, normal(x, SCH.t_end), rtol=0, atol=tol)
    torch.testing.assert_close(found.latent, GAUSSIAN.flow(x, SCH, SCH.t_end, 1.0), rtol=0, atol=tol)
    assert found.nfe >= 40


def test_the_noisy_end_may_be_pure_noise() -> None:
    """At alpha = 0 the prior is exact; a program carries its own span."""
    flow = logsnr.FlowMatching()
    den, times = GAUSSIAN.denoiser(flow, "velocity"), np.linspace(0.02, 1.0, 31)
    program = logsnr.solver("krogstad").program(flow, times, prediction="x0")
    x = GAUSSIAN.sample_at(flow, 0.02, 4, generator=torch.Generator().manual_seed(0))
    spread = torch.from_numpy(0.98**2 * VARIANCE + 0.02**2)
    exact = torch.distributions.Normal(0.98 * torch.from_numpy(MEAN), spread.sqrt()).log_prob(x).sum(1)
    found = analysis.log_likelihood(den, x, solver=program)  # which has its span
    torch.testing.assert_close(found.value, exact, rtol=0, atol=1e-2)
    same = analysis.log_likelihood(den, x, solver="krogstad", steps=30, grid="time", t_end=0.02)
    torch.testing.assert_close(same.value, found.value, rtol=0, atol=1e-2)


def test_a_little_of_the_divergence_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: a thousandth of the divergence is seen at once."""
    right = Exact.__call__
    monkeypatch.setattr(Exact, "__call__", lambda self, product: 0.999 * right(self, product))
    found = analysis.log_likelihood(GAUSSIAN.denoiser(SCH), X, steps=10, prior=lambda x: normal(x, SCH.t_start))
    assert float((found.value - normal(X, SCH.t_end)).abs().max()) > 1e-3


def test_data_outside_the_models_range() -> None:
    den = GAUSSIAN.denoiser(SCH)
    with pytest.raises(ValueError, match=r"x has a root mean square of .*, of which .* is left at t_start = 1"):
        analysis.log_likelihood(den, 255 * X, steps=4)
    with pytest.warns(UserWarning, match="the latent of 64 of 64 samples, the first being 0, has a root mean square"):
        analysis.log_likelihood(den, 0 * X + 30, steps=4)
    with pytest.raises(ValueError, match=r"is left at t_start = 0\.5"):
        analysis.log_likelihood(den, X, steps=4, t_start=0.5)


def test_bad_input() -> None:
    den = GAUSSIAN.denoiser(SCH)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"method": "trace"}, "method must be 'exact'"),
        ({"steps": 0}, "steps must be"),
        ({"method": "hutchinson", "probes": 1}, "probes must be"),
        ({"method": "hutch++", "probes": 5}, "probes must be a whole number from 6"),
        ({"t_start": 0.1, "t_end": 0.9}, "t_start must be noisier than t_end"),
        ({"rtol": 1e-3}, "rk4 takes steps equal in lam; leave out rtol"),
        ({"solver": "ddpm", "steps": 4}, "ddpm adds noise"),
        ({"solver": logsnr.solver("ddpm").program(SCH, [1.0, 0.5])}, "t_start must be noisier"),
        ({"solver": "ddim"}, "steps or nfe"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            analysis.log_likelihood(den, X, **options)
    flow = logsnr.FlowMatching()
    with pytest.raises(ValueError, match="lam must be finite"):
        analysis.log_likelihood(GAUSSIAN.denoiser(flow, "velocity"), X)
    with pytest.raises(TypeError, match="x must be a torch tensor"):
        analysis.log_likelihood(den, X.numpy())  # type: ignore[arg-type]
    blind = logsnr.Denoiser(lambda x, t: x.detach(), SCH, "v")
    with pytest.raises(ValueError, match="likelihood needs gradients through the model"):
        analysis.log_likelihood(blind, X, steps=1)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        analysis.log_likelihood(den, X, steps=1).interval(1.0)
    with pytest.raises(ValueError, match="x holds infinities or NaNs"):
        analysis.log_likelihood(den, X / 0, steps=1, prior=lambda x: torch.zeros(len(x)))


def test_odd_states() -> None:
    """A network in half precision, one sample of one element, samples without a shape, and none at all."""
    half = logsnr.Denoiser(lambda x, t: 0.5 * x, SCH, "v", dtype=torch.float16)
    assert analysis.log_likelihood(half, X[:1, :1].float().mT, steps=2).value.isfinite().all()
    for method in ("exact", "hutchinson", "hutch++"):
        found, column = (
            analysis.log_likelihood(GAUSSIAN_1D.denoiser(SCH), x, steps=4, method=method, probes=6, solver="krogstad")
            for x in (X[:, 1], X[:, 1:2])
        )
        torch.testing.assert_close(found.value, column.value, rtol=0, atol=1e-10)
        assert found.latent.shape == (64,)
        for x in (X[:0], X[:3, :0]):
            none = logsnr.Denoiser(lambda x, t: 0.5 * x, SCH, "v")
            assert analysis.log_likelihood(none, x, steps=2, method=method).interval()[0].shape == (len(x),)
