"""Log-likelihoods along the flow, against densities that are known."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis

SCH = logsnr.VPLinear()
MEAN, VARIANCE = np.array([0.5, -1.0, 0.0]), np.array([0.3, 1.0, 2.0])
GAUSSIAN = analysis.Gaussian(MEAN, VARIANCE)
X = GAUSSIAN.sample_at(SCH, SCH.t_end, 64, generator=torch.Generator().manual_seed(0))


def normal(x: torch.Tensor, t: float) -> torch.Tensor:
    """The exact log-density of the marginal at t."""
    alpha, sigma = float(SCH.alpha(t)), float(SCH.sigma(t))
    spread = torch.from_numpy(alpha**2 * VARIANCE + sigma**2)
    return (-0.5 * (x - alpha * torch.from_numpy(MEAN)) ** 2 / spread - 0.5 * (2 * math.pi * spread).log()).sum(1)


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_gaussians(prediction: str) -> None:
    """To 1e-6 with the exact law at the start; pure noise in its place costs little."""
    den = GAUSSIAN.denoiser(SCH, prediction)
    found = analysis.log_likelihood(den, X, prior=lambda x: normal(x, SCH.t_start))
    torch.testing.assert_close(found.value, normal(X, SCH.t_end), rtol=0, atol=1e-6)
    assert not found.error.any()
    plain = analysis.log_likelihood(den, X)
    torch.testing.assert_close(plain.value, found.value, rtol=0, atol=0.05)
    assert found.nfe == 400
    bits = found.bits_per_dimension(7.0)
    torch.testing.assert_close(bits, 7 - found.value / (3 * math.log(2)))


def test_mixtures() -> None:
    """The density of a mixture, to 1e-5 at 100 steps; with the exact law at the start."""
    data, last = analysis.two_gaussians(), SCH.t_end
    x = data.sample_at(SCH, last, 32, generator=torch.Generator().manual_seed(1))

    def density(x: torch.Tensor, t: float) -> torch.Tensor:
        alpha, sigma = float(SCH.alpha(t)), float(SCH.sigma(t))
        parts = [
            w * torch.exp(-0.5 * (x - alpha * m) ** 2 / (v := alpha**2 * c + sigma**2)) / math.sqrt(2 * math.pi * v)
            for w, m, c in ((0.3, -1.0, 0.09), (0.7, 0.8, 0.04))
        ]
        return sum(parts[1:], parts[0]).log().reshape(-1)

    found = analysis.log_likelihood(data.denoiser(SCH), x, prior=lambda z: density(z, SCH.t_start))
    torch.testing.assert_close(found.value, density(x, last), rtol=0, atol=1e-5)


def test_probes_tell_their_error() -> None:
    """Random signs are exact on diagonal Jacobians; elsewhere 95 % of the exact values lie within two errors."""
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    cov = basis @ torch.diag(torch.tensor([0.05, 0.3, 1.0, 3.0], dtype=torch.float64)) @ basis.T
    data = analysis.Gaussian(np.zeros(4), cov.numpy())
    x = data.sample_at(SCH, SCH.t_end, 200, generator=torch.Generator().manual_seed(3))
    den = data.denoiser(SCH, "x0")
    exact = analysis.log_likelihood(den, x, steps=40)
    found = [analysis.log_likelihood(den, x[:8], method="hutchinson", steps=40, probes=16, seed=s) for s in range(25)]
    off = torch.stack([(one.value - exact.value[:8]) / one.error for one in found])
    assert 0.85 < float((off.abs() < 2.13).double().mean()) <= 1  # Student's t of 15 degrees of freedom at 95 %
    diagonal = analysis.log_likelihood(GAUSSIAN.denoiser(SCH), X[:4], method="hutchinson", steps=20, probes=2)
    assert float(diagonal.error.max()) < 1e-9


def test_the_sign_of_the_divergence_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: a thousandth of the divergence is seen at once."""
    from logsnr.analysis import likelihood

    right = likelihood._trace
    monkeypatch.setattr(likelihood, "_trace", lambda slope, y: 0.999 * right(slope, y))
    found = analysis.log_likelihood(GAUSSIAN.denoiser(SCH), X, prior=lambda x: normal(x, SCH.t_start))
    assert float((found.value - normal(X, SCH.t_end)).abs().max()) > 1e-4


def test_bad_input() -> None:
    den = GAUSSIAN.denoiser(SCH)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"method": "trace"}, "method = 'trace'"),
        ({"steps": 0}, "steps must be"),
        ({"method": "hutchinson", "probes": 1}, "probes must be"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            analysis.log_likelihood(den, X, **options)
    flow = logsnr.FlowMatching()
    with pytest.raises(ValueError, match="lam must be finite"):
        analysis.log_likelihood(GAUSSIAN.denoiser(flow, "velocity"), X)
    with pytest.raises(TypeError, match="x must be a torch tensor"):
        analysis.log_likelihood(den, X.numpy())  # type: ignore[arg-type]
