"""One differentiable step with times per sample: at equal times the library's own step."""

import math

import pytest
import torch
from torch.func import jvp, vmap

import logsnr
from logsnr.control import step

A = logsnr.analysis
DATA = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65])
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.FlowMatching(), logsnr.EDM(), logsnr.Trigonometric(),
    logsnr.Discrete(torch.linspace(0.999, 0.0, 20, dtype=torch.float64).numpy()),
]  # fmt: skip
HEADS = ("x0", "eps", "v", "velocity", "score")
X = torch.linspace(-2, 2, 5, dtype=torch.float64)


def between(sch: logsnr.Schedule, *lams: float) -> list[float]:
    return [float(sch.time(lam)) for lam in lams]


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("solver", ["ddim", "heun-rho"])
def test_is_the_step_of_sample(sch: logsnr.Schedule, head: str, solver: str) -> None:
    """At equal times the step of `logsnr.sample`, forward and back, for long and tiny steps."""
    den = DATA.denoiser(sch, head)
    for lams in ((-1.5, 0.7), (0.2, 0.2 + 1e-7), (0.7, -1.5)):
        s, t = between(sch, *lams)
        wanted = logsnr.sample(den, X, solver=solver, grid=[s, t])
        torch.testing.assert_close(step(den, X, s, t, solver=solver, reverse=True), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("sch", [s for s in SCHEDULES if s.sigma(s.domain[0]) == 0], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("head", ["x0", "v"])
def test_ends_of_the_schedule(sch: logsnr.Schedule, head: str) -> None:
    """From the noisiest time, where alpha may be 0, to sigma = 0, and both ends to themselves."""
    den, (clean, noisy) = DATA.denoiser(sch, head), sch.domain
    for s, t in ((noisy, clean), (noisy, between(sch, 0.3)[0]), (between(sch, 0.3)[0], clean)):
        wanted = logsnr.sample(den, X, solver="ddim", grid=[s, t])
        for solver in ("ddim", "heun-rho"):
            found = step(den, X, s, t, solver=solver)
            assert found.isfinite().all()
            if t == clean or sch.alpha(s) == 0:
                torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    assert torch.equal(step(den, X, noisy, noisy), X)
    assert torch.equal(step(den, X, clean, clean), X)


def test_times_per_sample() -> None:
    """Each sample makes its own step, whatever the others do; times may be fp32 and on no grid."""
    sch = logsnr.VPLinear()
    den = DATA.denoiser(sch, "eps")
    s, t = torch.tensor([0.9, 0.5, 0.3, 0.7, 0.2]), torch.tensor([0.1, 0.5, 0.0, 0.69, 0.1])
    for solver in ("ddim", "heun-rho"):
        found = step(den, X, s, t, solver=solver)
        for n in range(5):
            alone = step(den, X[n : n + 1], float(s[n]), float(t[n]), solver=solver)
            torch.testing.assert_close(found[n : n + 1], alone, rtol=1e-14, atol=1e-14)
    assert found[1] == X[1]


def test_local_order_and_semigroup() -> None:
    """A step is off by h^2 for ddim and h^3 for heun-rho, and so is one step from two; not one that is 1e-3 longer."""
    sch = logsnr.FlowMatching()
    den = DATA.denoiser(sch, "velocity")
    for solver, order in (("ddim", 2), ("heun-rho", 3)):
        errors, gaps, mutant = [], [], []
        for h in (0.1, 0.05):
            s, u, t = between(sch, 0.1, 0.1 + h / 2, 0.1 + h)
            one = step(den, X, s, t, solver=solver)
            errors.append((one - DATA.reference(X, sch, s, t)).abs().max())
            mutant.append((one + 1e-3 * (one - X) - DATA.reference(X, sch, s, t)).abs().max())
            gaps.append((one - step(den, step(den, X, s, u, solver=solver), u, t, solver=solver)).abs().max())
        for pair in (errors, gaps):
            assert math.log2(pair[0] / pair[1]) == pytest.approx(order, abs=0.25)
        if solver == "heun-rho":
            assert math.log2(mutant[0] / mutant[1]) < order - 0.25


@pytest.mark.parametrize("solver", ["ddim", "heun-rho"])
def test_gradients(solver: str) -> None:
    """To x and to the weights, as finite differences have them, also where some samples end at sigma = 0."""
    sch = logsnr.FlowMatching()
    net = torch.nn.Linear(2, 2).double()
    den = logsnr.Denoiser(lambda x, t: torch.tanh(net(x)) + t[:, None], sch, "velocity")
    x = torch.tensor([[0.3, -0.5], [1.1, 0.4], [0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    s, t = torch.tensor([1.0, 0.8, 0.5]), torch.tensor([0.3, 0.0, 0.5])
    assert torch.autograd.gradcheck(lambda x, _: step(den, x, s, t, solver=solver), (x, net.weight))
    step(den, x, s, t, solver=solver).sum().backward()
    assert net.weight.grad is not None
    assert net.weight.grad.isfinite().all()


def test_vmap() -> None:
    """vmap goes through, where nobody can look at the times."""
    den = logsnr.Denoiser(lambda x, t: torch.sin(x), logsnr.Trigonometric(), "v")
    rows = vmap(lambda x: step(den, x, 1.2, 0.4))(X.reshape(5, 1))
    torch.testing.assert_close(rows.flatten(), math.cos(0.8) * X - math.sin(0.8) * torch.sin(X))


@pytest.mark.slow  # torch compiles its rules of jvp when they are first used
def test_jvp() -> None:
    """As the training of MeanFlow and of continuous-time consistency models needs it."""
    den = logsnr.Denoiser(lambda x, t: torch.sin(x), logsnr.Trigonometric(), "v")
    end, rate = jvp(lambda x: step(den, x, 1.2, 0.4), (X,), (torch.ones_like(X),))
    torch.testing.assert_close(end, math.cos(0.8) * X - math.sin(0.8) * torch.sin(X))
    torch.testing.assert_close(rate, math.cos(0.8) - math.sin(0.8) * torch.cos(X))


def test_dtypes_and_strides() -> None:
    """A model in fp16, a state in any dtype and layout, a batch of one or none."""
    sch, net = logsnr.VPLinear(), torch.nn.Conv2d(2, 2, 1).half()
    den = logsnr.Denoiser(lambda x, t: net(x), sch, "eps", dtype=torch.float16)
    x = torch.randn(3, 4, 4, 2, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    found = step(den, x, torch.tensor([0.9, 0.5, 0.3]), 0.1)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found[:1], step(den, x[:1].contiguous(), 0.9, 0.1))
    assert step(den, x.half(), 0.5, 0.1).dtype is torch.float16
    assert step(den, x[:0], 0.5, 0.1).shape == (0, 2, 4, 4)


def test_conditions_and_guidance() -> None:
    """Rows of conditions and guidance are the denoiser's own."""
    sch, y = logsnr.FlowMatching(), torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    guided = logsnr.Denoiser(
        lambda x, t, y: x + y, sch, "velocity", conditions={"y": y}, guidance=logsnr.Guidance(3.0, uncond={"y": 0 * y})
    )
    torch.testing.assert_close(step(guided, X, 0.9, 0.4), X - 0.5 * (X + 3 * y))


def test_data_at_one() -> None:
    """A network whose own time runs from noise to data returns the velocity with the other sign."""
    one = logsnr.Denoiser(lambda x, t: -t[:, None], logsnr.FlowMatching(data_at=1), "velocity")
    found = step(one, torch.zeros(1, 1, dtype=torch.float64), 0.75, 0.25)
    torch.testing.assert_close(found, torch.tensor([[-0.5 * 0.25]], dtype=torch.float64))


def test_refuses() -> None:
    sch = logsnr.VPCosine()
    den = DATA.denoiser(sch, "eps")
    with pytest.raises(ValueError, match=r"sample 1 would go from s = 0.2 to t = 0.3.*more noise"):
        step(den, X[:2], torch.tensor([0.5, 0.2]), 0.3)
    with pytest.raises(ValueError, match=r"s\[0\] = 1.5 is outside the times of VPCosine"):
        step(den, X, 1.5, 0.3)
    with pytest.raises(ValueError, match=r"t\[2\] = nan is outside"):
        step(den, X[:3], 0.5, torch.tensor([0.1, 0.1, math.nan]))
    with pytest.raises(ValueError, match="'eps' does not determine the step of sample 0 from s = 1, where alpha = 0"):
        step(den, X, 1.0, 0.3)
    with pytest.raises(ValueError, match="'x0' does not determine the step of sample 0 from s = 0"):
        step(DATA.denoiser(sch, "x0"), X, 0.0, 0.3, reverse=True)
    with pytest.raises(TypeError, match=r"s must be a number or numbers \(B,\), not 'now'"):
        step(den, X, "now", 0.3)
    with pytest.raises(ValueError, match="did you mean 'heun-rho'"):
        step(den, X, 0.5, 0.3, solver="heun")
    with pytest.raises(ValueError, match=r"t must be a number or have shape \(5,\)"):
        step(den, X, torch.rand(4), 0.0)
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser"):
        step(lambda x, t: x, X, 0.5, 0.3)
    with pytest.raises(TypeError, match="x must be a torch tensor"):
        step(den, [0.1], 0.5, 0.3)
