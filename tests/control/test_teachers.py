"""Targets and gradients for students, against closed forms."""

import itertools
import math

import mpmath
import pytest
import torch

import logsnr
from logsnr.control import consistency_pair, noised, progressive_target, score_gradient, step

A = logsnr.analysis
MIXTURE = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65])
FM, VP, EDM, COSINE = logsnr.FlowMatching(), logsnr.VPLinear(), logsnr.EDM(), logsnr.VPCosine()
SCHEDULES = [FM, VP, EDM, COSINE, logsnr.SubVP()]
HEADS = ("x0", "eps", "v", "velocity", "score")
X = torch.linspace(-2, 2, 5, dtype=torch.float64)
Z = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.5], dtype=torch.float64)


def frozen(answer: torch.Tensor, sch: logsnr.Schedule, head: str) -> logsnr.Denoiser:
    return logsnr.Denoiser(lambda x, t: answer, sch, head)


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
@pytest.mark.parametrize("head", HEADS)
def test_progressive_target_makes_one_step_of_many(sch: logsnr.Schedule, head: str) -> None:
    """A student of any head, of a teacher of any head, in times per sample, for two and three steps to one."""
    s = torch.as_tensor(sch.time(torch.tensor([-3.0, -1.0, 0.0, 1.0, -2.0], dtype=torch.float64)))
    t = torch.as_tensor(sch.time(torch.tensor([-1.0, 1.5, 0.1, 4.0, 2.0], dtype=torch.float64)))
    for times in ([s, (s + t) / 2, t], [s, 0.7 * s + 0.3 * t, 0.4 * s + 0.6 * t, t]):
        for given in ("eps", "x0"):
            target, end = progressive_target(MIXTURE.denoiser(sch, given), X, times, head=head)
            state = X
            for a, b in itertools.pairwise(times):
                state = step(MIXTURE.denoiser(sch, given), state, a, b)
            torch.testing.assert_close(end, state, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(step(frozen(target, sch, head), X, s, t), end, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("head", ["x0", "v", "velocity"])
@pytest.mark.parametrize("sch", [FM, logsnr.Trigonometric()], ids=lambda sch: type(sch).__name__)
def test_progressive_target_at_both_ends(sch: logsnr.Schedule, head: str) -> None:
    """From alpha = 0 to sigma = 0: zero terminal SNR, and the whole way in one step."""
    teacher, u = MIXTURE.denoiser(sch, "v"), float(sch.time(0.2))
    clean, noisy = sch.domain
    target, end = progressive_target(teacher, X, [noisy, u, clean], head=head)
    torch.testing.assert_close(end, step(teacher, step(teacher, X, noisy, u), u, clean))
    torch.testing.assert_close(step(frozen(target, sch, head), X, noisy, clean), end, rtol=1e-13, atol=1e-13)
    x0, _ = progressive_target(teacher, X, [noisy, u, clean], head="x0")
    torch.testing.assert_close(x0, end)


@pytest.mark.parametrize("head", ["x0", "eps", "v"])
def test_progressive_target_of_tiny_steps(head: str) -> None:
    """Where the published quotient has lost seven digits: against 50 digits."""
    s, h = 0.6, 1e-7
    u, t = s - h / 3, s - h
    x, level = 1.3, [mpmath.mpf(1) - mpmath.mpf(v) for v in (s, u, t)]
    first, second = 0.41, 0.4100003  # x0 of the teacher at both calls
    answers = iter([first, second])
    teacher = logsnr.Denoiser(lambda x, t: torch.full_like(x, next(answers)), FM, "x0")
    found = progressive_target(teacher, torch.tensor([x], dtype=torch.float64), [s, u, t], head=head).target.item()
    with mpmath.workdps(50):
        sig = [mpmath.mpf(v) for v in (s, u, t)]
        ddim = lambda x, k, x0: sig[k + 1] / sig[k] * x + (level[k + 1] - level[k] * sig[k + 1] / sig[k]) * x0  # noqa: E731
        end = ddim(ddim(mpmath.mpf(x), 0, mpmath.mpf(first)), 1, mpmath.mpf(second))
        x0 = (sig[0] * end - sig[2] * mpmath.mpf(x)) / (level[2] * sig[0] - level[0] * sig[2])
        eps = (mpmath.mpf(x) - level[0] * x0) / sig[0]
        wanted = {"x0": x0, "eps": eps, "v": level[0] * eps - sig[0] * x0}[head]
    assert found == pytest.approx(float(wanted), rel=1e-13)


def test_progressive_target_refuses() -> None:
    den = MIXTURE.denoiser(COSINE, "v")
    with pytest.raises(ValueError, match="the head 'eps' does not determine the step of sample 0 from s = 1"):
        progressive_target(den, X, [1.0, 0.6, 0.2], head="eps")
    with pytest.raises(ValueError, match="does not determine the step"):
        progressive_target(MIXTURE.denoiser(COSINE, "eps"), X, [1.0, 0.6, 0.2], head="v")
    with pytest.raises(ValueError, match=r"times 1 and 2 are both 0.3"):
        progressive_target(den, X, [0.6, 0.3, 0.3])
    with pytest.raises(ValueError, match=r"would go from s = 0.3 to t = 0.6"):
        progressive_target(den, X, [0.3, 0.6, 0.1])
    with pytest.raises(ValueError, match="three or more"):
        progressive_target(den, X, [0.3, 0.1])
    with pytest.raises(ValueError, match="head = 'epsilon' is not one; that is 'eps' here"):
        progressive_target(den, X, [0.6, 0.3, 0.1], head="epsilon")


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
def test_consistency_pairs(sch: logsnr.Schedule) -> None:
    """A teacher that knows the sample gives the pair of training; DDIM with the exact score is E[x_t | x_s]."""
    s, t = (torch.full((5,), float(sch.time(lam)), dtype=torch.float64) for lam in (-1.0, -0.4))
    trained = consistency_pair(sch, X, Z, s, t)
    for u, state in ((s, trained.x_s), (t, trained.x_t)):
        torch.testing.assert_close(state, sch.alpha(u) * X + sch.sigma(u) * Z)
    knows = logsnr.Denoiser(lambda x, t: X, sch, "x0")
    for solver in ("ddim", "heun-rho"):
        distilled = consistency_pair(knows, X, Z, s, t, solver=solver)
        torch.testing.assert_close(distilled.x_t, trained.x_t, rtol=1e-12, atol=1e-12)
    m, c = 0.7, 0.1225
    found = consistency_pair(A.Gaussian(m, c).denoiser(sch), X, Z, s, t)
    (a, b), (p, q) = ((sch.alpha(u), sch.sigma(u)) for u in (s, t))
    regression = p * m + (p * a * c + q * b) / (a * a * c + b * b) * (found.x_s - a * m)
    torch.testing.assert_close(found.x_t, regression, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="more noise"):
        consistency_pair(sch, X, Z, t, s)
    with pytest.raises(ValueError, match="noise must have the shape"):
        consistency_pair(sch, X, Z[:2], s, t)


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
def test_score_gradient_is_that_of_the_kl(sch: logsnr.Schedule) -> None:
    """For Gaussians x0 = theta + a z: the mean of the gradient, and of gradient times z, which are exact in three
    points, as it is affine in z and noise."""
    m, c, theta, a = 0.2, 0.5, 0.9, 0.6
    teacher, student = A.Gaussian(m, c).denoiser(sch, "eps"), A.Gaussian(theta, a * a).denoiser(sch, "x0")
    x0 = theta + a * torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    for lam in (-2.0, 0.0, 2.0):
        t = float(sch.time(lam))
        alpha, sigma = sch.alpha(t), sch.sigma(t)
        r1, r2 = alpha**2 * c + sigma**2, alpha**2 * a * a + sigma**2
        g = score_gradient(teacher, x0, torch.zeros(3, dtype=torch.float64), t, student=student).gradient
        assert g[0].item() == pytest.approx(alpha**2 * (theta - m) / r1, rel=1e-9)
        assert (g[1] - g[2]).item() / 2 == pytest.approx(alpha**2 * a * (1 / r1 - 1 / r2), rel=1e-9)
        noise = torch.tensor([0.4, -0.3, 1.0], dtype=torch.float64)
        x_t, sds = score_gradient(teacher, x0, noise, t)
        torch.testing.assert_close(x_t, alpha * x0 + sigma * noise)
        torch.testing.assert_close(sds, alpha / sigma * (teacher.eps(x_t, t) - noise), rtol=1e-9, atol=1e-12)
        for weight in ("sigma2", lambda lam: sch.sigma(sch.time(lam)) ** 2):
            other = score_gradient(teacher, x0, noise, t, weight=weight).gradient
            torch.testing.assert_close(other, sigma**2 * sds, rtol=1e-9, atol=1e-12)


def test_dmd_weight_and_dtypes() -> None:
    """The difference of both x0 over the mean distance, also where there is little noise; any dtype and layout."""
    x0 = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0)).transpose(1, 2)
    noise = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    teacher = logsnr.Denoiser(lambda x, t: 0.5 * x.half(), VP, "v", dtype=torch.float16)
    student = logsnr.Denoiser(lambda x, t: 0.1 * x, VP, "v")
    t = torch.tensor([0.9, 0.3, 0.001])
    x_t, found = score_gradient(teacher, x0, noise, t, student=student, weight="dmd")
    away = (x0 - teacher.x0(x_t, t)).abs().mean((1, 2), keepdim=True)
    torch.testing.assert_close(found, (student.x0(x_t, t) - teacher.x0(x_t, t)) / away, rtol=1e-3, atol=1e-3)
    assert score_gradient(teacher, x0.half(), noise, 0.5).gradient.dtype is torch.float16
    one = score_gradient(teacher, x0[:1], noise[:1], 0.9, student=student, weight="dmd").gradient
    torch.testing.assert_close(one, found[:1])


def test_loss_hands_the_gradient_on() -> None:
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    x0 = theta * X
    g = score_gradient(MIXTURE.denoiser(FM, "velocity"), x0, Z, 0.5).gradient
    assert not g.requires_grad
    ((g * x0).sum() / 5).backward()
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(((g * X).sum() / 5).item())


def test_score_gradient_refuses() -> None:
    den = MIXTURE.denoiser(FM, "x0")
    with pytest.raises(ValueError, match="the gradient of sample 1 is not finite at t = 0"):
        score_gradient(den, X[:2], Z[:2], torch.tensor([0.5, 0.0]))
    with pytest.raises(ValueError, match="not finite at t = 1"):
        score_gradient(MIXTURE.denoiser(FM, "eps"), X, Z, 1.0)
    with pytest.raises(ValueError, match="weight = 'KL' is not one"):
        score_gradient(den, X, Z, 0.5, weight="KL")
    with pytest.raises(ValueError, match="student and teacher must have one schedule"):
        score_gradient(den, X, Z, 0.5, student=MIXTURE.denoiser(VP))
    with pytest.raises(ValueError, match=r"s\[0\] = 1.2 is outside"):
        score_gradient(den, X, Z, 1.2)
    for call in (
        lambda: score_gradient(FM, X, Z, 0.5),
        lambda: score_gradient(den, X, Z, 0.5, student=FM),
        lambda: progressive_target(FM, X, [0.5, 0.3, 0.1]),
        lambda: consistency_pair(None, X, Z, 0.5, 0.3),
    ):
        with pytest.raises(TypeError, match=r"must be a logsnr\.Denoiser, not"):
            call()
    assert noised(FM, X, Z, 0.0).equal(X)
    assert math.isfinite(float(score_gradient(den, X, Z, 1.0).gradient.sum()))
