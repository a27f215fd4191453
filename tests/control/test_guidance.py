"""Classifier guidance is exact where the classifier is; energies, thresholds and chains do what they say."""

import math
from typing import Any

import pytest
import torch

import logsnr
from logsnr.analysis import Gaussian, GaussianMixture, Problem
from logsnr.control import MGPD, Classifier, FreeDoM, Guide, chain, threshold_dynamic, threshold_static, universal

F64 = torch.float64
MEANS = torch.tensor([[1.0, -0.5], [-1.2, 0.4], [0.9, 0.1]], dtype=F64)
VARIANCES = torch.tensor([[0.2, 0.5], [0.6, 0.1], [0.3, 0.3]], dtype=F64)
WEIGHTS = torch.tensor([0.3, 0.5, 0.2], dtype=F64)
CLASSES = torch.tensor([0, 1, 0])  # of each component: class 0 is a mixture itself
BOTH = GaussianMixture(MEANS, VARIANCES, WEIGHTS)
SCHEDULES = [(logsnr.EDM(), "x0"), (logsnr.VPLinear(), "eps"), (logsnr.FlowMatching(), "velocity")]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def guided(data: Problem, sch: logsnr.Schedule, guide: Any, head: str = "x0", **options: Any) -> logsnr.Denoiser:
    return logsnr.Denoiser(data.denoiser(sch, head).model, sch, head, dtype=F64, map_x0=guide, **options)


def of_class(k: int) -> GaussianMixture:
    mine = k == CLASSES
    return GaussianMixture(MEANS[mine], VARIANCES[mine], WEIGHTS[mine] / WEIGHTS[mine].sum())


def classifier(sch: logsnr.Schedule) -> Any:
    """The exact log p(label | x_t)."""

    def log_prob(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (f(t.double()).reshape(-1, 1, 1) for f in (sch.alpha, sch.sigma))
        r2 = alpha**2 * VARIANCES + sigma**2
        joint = WEIGHTS.log() - ((x[:, None] - alpha * MEANS) ** 2 / r2 + r2.log()).sum(-1) / 2
        mine = torch.where(label[:, None] == CLASSES, joint, -math.inf)
        return mine.logsumexp(1) - joint.logsumexp(1)

    return log_prob


@pytest.mark.parametrize(("sch", "head"), SCHEDULES)
def test_classifier_guidance_is_exact(sch: logsnr.Schedule, head: str) -> None:
    """At scale 1 it is the denoiser of the class, at every level and for each sample's own label."""
    x, labels = random(4, 2), torch.tensor([0, 1, 1, 0])
    den = guided(BOTH, sch, Classifier(classifier(sch), 1.0, {"label": labels}), head)
    for lam in (-4.0, -1.0, 0.5, 3.0):
        t = float(sch.time(lam))
        for b, k in enumerate(labels.tolist()):
            wanted = of_class(k).denoiser(sch).x0(x[b : b + 1], t)
            torch.testing.assert_close(den.x0(x, t)[b : b + 1].detach(), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"parallel": logsnr.Picard(window=4, tol=0.0)}])
@pytest.mark.parametrize("solver", ["dpmpp-2m", "sde-dpmpp-2m"])
def test_samples_are_those_of_the_class(solver: str, options: Any) -> None:
    sch, labels = logsnr.VPLinear(), torch.tensor([0, 1, 1, 0])
    settings = dict(solver=solver, steps=12, seed=0, **options)
    found = logsnr.solve(
        guided(BOTH, sch, Classifier(classifier(sch), 1.0, {"label": labels}), "eps"), random(4, 2), **settings
    )
    for k in (0, 1):
        wanted = logsnr.sample(guided(of_class(k), sch, None, "eps"), random(4, 2), **settings)
        torch.testing.assert_close(found.x[labels == k], wanted[labels == k], rtol=1e-10, atol=1e-10)


def test_a_wrong_sign_or_gain_is_noticed() -> None:
    """The mutants of the test above."""
    sch, x, t = logsnr.VPLinear(), random(4, 2), 0.4
    wanted = of_class(0).denoiser(sch).x0(x, t)
    for scale in (-1.0, 1.001, lambda lam: 1 / float(sch.sigma(t)) + 0 * lam):
        guide = Classifier(classifier(sch), scale, {"label": torch.zeros(4, dtype=torch.int64)})
        assert (guided(BOTH, sch, guide).x0(x, t) - wanted).abs().max() > 1e-6


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
def test_guided_flows_do_not_sample_the_tilted_density(w: float) -> None:
    """N(0, 1), and a measurement that leaves N(mu, q): the flow ends with the standard deviation
    T (q/(q + T^2))^(w/2) (1 + T^2)^((w - 1)/2), which is not that of p(x) p(y | x)^w but for w = 0 and 1 (remark of
    8.1; the density's equation is that of erratum 8.1)."""
    mu, q, sch = 1.0, 0.25, logsnr.EDM()
    std2 = q / (1 - q)
    y = mu / (1 - q)

    def log_prob(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        level = t.square().reshape(-1, 1)
        return -((y - x / (1 + level)) ** 2 / (std2 + level / (1 + level))).sum(1) / 2

    den = guided(Gaussian(torch.zeros(1, dtype=F64), 1.0), sch, Classifier(log_prob, w))
    end = float(sch.sigma(sch.t_start))
    found = logsnr.sample(
        den, torch.tensor([[0.0], [end]], dtype=F64), solver="dpmpp-3m", steps=100, startup="single-step"
    )
    spread = end * (q / (q + end**2)) ** (w / 2) * (1 + end**2) ** ((w - 1) / 2)
    assert (found[1] - found[0]).item() == pytest.approx(spread, rel=3e-3)
    tilted = (1 + w / std2) ** -0.5
    assert (abs(spread - tilted) < 1e-2) is (w in (0.0, 1.0))


def energy(x0: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    return (x0.cos() + (0 if y is None else y * x0)).sum(1)


def test_energy_guidance_of_the_score() -> None:
    """One DDIM step moves by sigma_s^2 (alpha_t/alpha_s - sigma_t/sigma_s) G, downhill; the book's formula, by
    -sigma_s sigma_t G, uphill (erratum 8.2)."""
    sch, s, t, x = logsnr.Trigonometric(), 1.0, 0.9, random(3, 2)
    y = random(3, 2, seed=1)
    plain = guided(BOTH, sch, None)

    def through(x: torch.Tensor) -> torch.Tensor:
        return energy(plain.x0(x, s), y)

    leaf = x.clone().requires_grad_()
    g = -torch.autograd.grad(through(leaf).sum(), leaf)[0]
    a, b, c, d = (float(f(u)) for u in (s, t) for f in (sch.alpha, sch.sigma))
    before, after = (
        logsnr.sample(den, x, solver="ddim", grid=[s, t])
        for den in (plain, guided(BOTH, sch, FreeDoM(energy, 0.01, {"y": y})))
    )
    torch.testing.assert_close(after - before, 0.01 * b**2 * (c / a - d / b) * g, rtol=1e-10, atol=1e-12)

    def at_end(x: torch.Tensor) -> torch.Tensor:
        return energy(plain.x0(x, t), y)

    assert (at_end(after) < at_end(before)).all()
    assert (at_end(before - 0.01 * b * d * g) > at_end(before)).all()


def test_energy_guidance_of_x0() -> None:
    """Gradient steps, repeated, that need no gradients of the model; both together are universal guidance."""
    sch, x, y = logsnr.EDM(), random(3, 2), random(3, 2, seed=1)
    x0 = by_hand = guided(BOTH, sch, None).x0(x, 0.6)
    for _ in range(3):
        by_hand = by_hand - 0.1 * (y - by_hand.sin())
    guide = MGPD(energy, 0.1, {"y": y}, iterations=3)
    assert not guide.gradients
    torch.testing.assert_close(guided(BOTH, sch, guide).x0(x, 0.6), by_hand, rtol=1e-12, atol=1e-12)
    both = universal(energy, 0.2, 0.1, 3, {"y": y})
    assert both.gradients
    chained = chain(FreeDoM(energy, 0.2, {"y": y}), guide)
    found = guided(BOTH, sch, both).x0(x, 0.6)
    assert torch.equal(found, guided(BOTH, sch, chained).x0(x, 0.6))
    assert (found - x0).norm() > 1e-3


@pytest.mark.parametrize("options", [{}, {"parallel": logsnr.Picard(window=4, tol=0.0)}])
def test_inference_mode(options: Any) -> None:
    sch, labels = logsnr.VPLinear(), torch.tensor([0, 1, 1, 0])
    y, settings = random(4, 2, seed=1), dict(solver="dpmpp-2m", steps=4, **options)

    def run() -> torch.Tensor:
        guides = Classifier(classifier(sch), 1.0, {"label": labels.clone()}), MGPD(energy, 0.1, {"y": y.clone()})
        return logsnr.sample(guided(BOTH, sch, chain(*guides), "eps"), random(4, 2), **settings)

    with torch.inference_mode():
        found = run()
    assert torch.equal(found, run())


def test_gradients_of_a_run_with_a_classifier() -> None:
    sch, labels = logsnr.VPLinear(), torch.tensor([0, 1])
    x = random(2, 2).requires_grad_()

    def end(x: torch.Tensor) -> torch.Tensor:
        guides = Classifier(classifier(sch), 2.0, {"label": labels}), MGPD(energy, 0.1)
        return logsnr.sample(guided(BOTH, sch, chain(*guides), "eps"), x, solver="ddim", steps=3).square().sum()

    (slope,) = torch.autograd.grad(end(x), x)
    h = torch.zeros(2, 2, dtype=F64)
    h[0, 1] = 1e-5
    difference = (end(x.detach() + h) - end(x.detach() - h)) / 2e-5
    assert slope[0, 1].item() == pytest.approx(difference.item(), rel=1e-6)


def test_thresholds() -> None:
    """No-ops within the limit, idempotent, by sample; static is the clamp, dynamic scales."""
    sch, x = logsnr.EDM(), 3 * random(4, 50)
    data = Gaussian(torch.zeros(50, dtype=F64), 100.0)
    x0 = guided(data, sch, None).x0(x, 0.1)
    static = guided(data, sch, threshold_static(2.0)).x0(x, 0.1)
    assert torch.equal(static, x0.clamp(-2.0, 2.0))
    dynamic = guided(data, sch, threshold_dynamic(0.9, 2.0)).x0(x, 0.1)
    bound = torch.quantile(x0.abs(), 0.9, dim=1, keepdim=True).clamp(min=2.0)
    torch.testing.assert_close(dynamic, x0.clamp(-bound, bound) * 2 / bound)
    assert dynamic.abs().max() <= 2.0
    for guide in (threshold_static(20.0), threshold_dynamic(0.9, 20.0)):
        assert torch.equal(guided(data, sch, guide).x0(x, 0.1), x0)
    twice = guided(data, sch, chain(threshold_dynamic(0.9, 2.0), threshold_dynamic(0.9, 2.0))).x0(x, 0.1)
    assert torch.equal(twice, dynamic)
    alone = guided(data, sch, threshold_dynamic(0.9, 2.0)).x0(x[1:2], 0.1)
    assert torch.equal(alone, dynamic[1:2])
    one = guided(Gaussian(torch.zeros(1, dtype=F64), 100.0), sch, threshold_dynamic(1.0, 2.0))
    torch.testing.assert_close(one.x0(x[:, :1], 0.1), x0[:, :1].clamp(-2.0, 2.0))


def test_chains_hand_on() -> None:
    order: list[str] = []

    class First(Guide):
        def guide(self, x0: torch.Tensor, x: torch.Tensor, at: Any) -> torch.Tensor:
            order.append("first")
            return x0 + 1

    def second(x0: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        order.append("second")
        assert t.shape == (2,)
        return 2 * x0

    found = guided(BOTH, logsnr.EDM(), chain(First(), second)).x0(random(2, 2), 0.5)
    torch.testing.assert_close(found, 2 * (BOTH.denoiser(logsnr.EDM()).x0(random(2, 2), 0.5) + 1))
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Classifier(lambda x, t: x.detach().sum(1)), "has no gradient with respect to x"),
        (Classifier(torch.no_grad()(lambda x, t: x.sum(1))), "has no gradient with respect to x"),
        (Classifier(lambda x, t: torch.ones(len(x), requires_grad=True) + 0), "has no gradient"),
        (Classifier(lambda x, t: x), r"one number per row, shape \(2,\), not \(2, 2\)"),
        (Classifier(lambda x, t: 0.5), "not float"),
        (FreeDoM(lambda x0: x0.sum()), r"shape \(2,\), not \(\)"),
        (MGPD(lambda x0: (x0 > 0).sum(1)), "has no gradient"),
        (Classifier(classifier(logsnr.EDM()), 1.0, {"label": CLASSES}), r"'label'\] has 3 rows for a batch of 2"),
        (chain(MGPD(energy, 1.0, {"y": CLASSES})), r"'y'\] has 3 rows"),
    ],
)
def test_functions_that_will_not_do(guide: Guide, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logsnr.sample(guided(BOTH, logsnr.EDM(), guide), random(2, 2), steps=2)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="Classifier takes a function"):
        Classifier(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scale must be a number"):
        FreeDoM(energy, "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="conditions must be a dictionary"):
        MGPD(energy, 1.0, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="chain takes guides and functions"):
        chain(threshold_static(), 1)  # type: ignore[arg-type]
    for limit in (0, -1.0, float("inf"), "1"):
        with pytest.raises(ValueError, match="limit must be"):
            threshold_static(limit)  # type: ignore[arg-type]
    for quantile in (0, 1.5):
        with pytest.raises(ValueError, match=r"quantile must be in \(0, 1\]"):
            threshold_dynamic(quantile)
