"""Steps, flow maps and teachers of complex states: as runs of them, and exact on Gaussian data."""

import pytest
import torch

import logsnr
from logsnr import control

SCH = logsnr.VPLinear()
Z = torch.randn(4, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
XI = torch.randn(4, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))


def gaussian(power: float) -> logsnr.Denoiser:
    """Of x0 with this power: E |x0|^2, half of it in each part."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = SCH.alpha(t.double())[:, None], SCH.sigma(t.double())[:, None]
        return x * alpha * power / (alpha**2 * power + sigma**2)

    return logsnr.Denoiser(model, SCH, "x0")


def turned(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Mixes the parts: v in no real sense."""
    return (0.3 + 0.5j) * x / (1 + x.abs()) + 0.1j


CURVED = logsnr.Denoiser(turned, SCH, "v")


@pytest.mark.parametrize("solver", ["ddim", "heun-rho"])
def test_a_step_is_that_of_a_run(solver: str) -> None:
    wanted = logsnr.sample(CURVED, Z, solver=solver, grid=[0.8, 0.5])
    torch.testing.assert_close(control.step(CURVED, Z, 0.8, 0.5, solver=solver), wanted, rtol=1e-12, atol=1e-12)
    z = Z.to(torch.complex64).requires_grad_()
    made = control.step(CURVED, z, torch.linspace(0.9, 0.6, 4), 0.5, solver=solver)
    made.abs().sum().backward()
    assert made.dtype == torch.complex64
    assert z.grad is not None
    assert z.grad.is_complex()


def test_flow_maps() -> None:
    """One step of DDIM is a map of its own head; consistency sampling has the noise of ``lcm``."""
    flow = control.FlowMap(lambda x, s, t: turned(x, s), SCH, "v")
    torch.testing.assert_close(flow(Z, 0.8, 0.5), control.step(CURVED, Z, 0.8, 0.5), rtol=1e-12, atol=1e-12)
    grid = [1.0, 0.6, 0.3, 0.0]
    wanted = logsnr.sample(CURVED, Z, solver="lcm", grid=grid, seed=3)
    torch.testing.assert_close(flow.sample(Z, grid=grid, gamma=1.0, seed=3), wanted, rtol=1e-10, atol=1e-10)
    state = control.FlowMap(lambda x, s: 0.5j * x, SCH, ends=False)
    assert state.sample(Z.to(torch.complex64), 2, seed=0).dtype == torch.complex64


def test_teachers() -> None:
    """A student with the progressive target ends where the teacher does; pairs are on one trajectory."""
    target, end = control.progressive_target(CURVED, Z, [0.9, 0.7, 0.5])
    student = logsnr.Denoiser(lambda x, t: target, SCH, "v")
    torch.testing.assert_close(control.step(student, Z, 0.9, 0.5), end, rtol=1e-10, atol=1e-10)
    x_s, x_t = control.consistency_pair(CURVED, Z, XI, 0.8, 0.5)
    alpha, sigma = (float(level(0.8)) for level in (SCH.alpha, SCH.sigma))
    torch.testing.assert_close(x_s, alpha * Z + sigma * XI, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(x_t, control.step(CURVED, x_s, 0.8, 0.5))


@pytest.mark.parametrize(("weight", "power"), [("kl", 0), ("sigma2", 2)])
def test_the_gradient_is_that_of_the_kl(weight: str, power: int) -> None:
    """Between Gaussians of powers 0.5 and 2: the score of each part is that of half of the power."""
    alpha, sigma = (float(level(0.6)) for level in (SCH.alpha, SCH.sigma))
    x_t, gradient = control.score_gradient(gaussian(2.0), Z, XI, 0.6, student=gaussian(0.5), weight=weight)
    scores = [-x_t / ((alpha**2 * c + sigma**2) / 2) for c in (0.5, 2.0)]
    wanted = sigma**power * alpha * (scores[0] - scores[1])
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)
    known = control.score_gradient(gaussian(2.0), Z, XI, 0.6, weight=weight).gradient
    score = -XI / (sigma / 2)
    torch.testing.assert_close(known, sigma**power * alpha * (score - scores[1]), rtol=1e-10, atol=1e-10)
    assert control.score_gradient(gaussian(2.0), Z, XI, 0.6, weight="dmd").gradient.isfinite().all()


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="x is complex, and so must noise be"):
        control.noised(SCH, Z, XI.real, 0.5)
    with pytest.raises(ValueError, match=r"noise is torch\.complex128, and x0 is real"):
        control.noised(SCH, Z.real, XI, 0.5)
    with pytest.raises(ValueError, match="noise must have the shape of x0"):
        control.score_gradient(CURVED, Z, XI[:2], 0.5)
    half = logsnr.Denoiser(turned, SCH, "v", dtype=torch.float16)
    with pytest.raises(ValueError, match="there are no complex numbers of that"):
        control.step(half, Z, 0.8, 0.5)
