"""Each method has its closed form on Gaussian data, where the posterior is known."""

from typing import Any

import pytest
import torch

import logsnr
from logsnr.analysis import Gaussian, Problem, load_digits
from logsnr.bench.digits_net import PREDICTION, SCHEDULE, load_digits_net
from logsnr.bench.posteriors import dense, images, operators, posterior
from logsnr.control import (
    DPS,
    ILVR,
    MMPS,
    FreeDoM,
    LinearProblem,
    PiGDM,
    Projection,
    gray,
    mask,
    matrix,
    operator,
    superresolution,
)
from logsnr.solvers.denoisers.guides import At, Guide

F64 = torch.float64
SCHEDULES = [(logsnr.EDM(), "x0"), (logsnr.VPLinear(), "eps"), (logsnr.FlowMatching(), "velocity")]
DATA = images(4)
OPERATORS = operators(4)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def guided(data: Problem, sch: logsnr.Schedule, guide: Guide, head: str = "x0") -> logsnr.Denoiser:
    return logsnr.Denoiser(data.denoiser(sch, head).model, sch, head, dtype=F64, map_x0=guide)


def levels(sch: logsnr.Schedule) -> list[float]:
    return [float(sch.time(lam)) for lam in (-3.0, 0.0, 2.0)]


def covariance(cov: torch.Tensor, sch: logsnr.Schedule, t: float) -> torch.Tensor:
    """Cov(x0 | x_t)."""
    a, s = float(sch.alpha(t)), float(sch.sigma(t))
    return s**2 * cov @ torch.linalg.inv(a**2 * cov + s**2 * torch.eye(len(cov), dtype=F64))


@pytest.mark.parametrize(("sch", "head"), SCHEDULES)
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("method", [DPS, PiGDM, MMPS])
def test_closed_forms(method: Any, name: str, sch: logsnr.Schedule, head: str) -> None:
    """x0 + V A^T W (y - A x0), with W = 1/std^2, 1/(std^2 + r^2 A A^T), 1/(std^2 + A V A^T): the last is exact."""
    A, std, x = OPERATORS[name], 0.4, random(2, 1, 4, 4)
    a = dense(A, DATA)
    problem = LinearProblem(A, random(*A(x).shape, seed=1), std)
    guide = MMPS(problem, 40) if method is MMPS else method(problem)
    eye = torch.eye(len(a), dtype=F64)
    for t in levels(sch):
        alpha, sigma = float(sch.alpha(t)), float(sch.sigma(t))
        x0, v = DATA.denoiser(sch).x0(x, t).flatten(1), covariance(DATA.cov, sch, t)
        r2 = sigma**2 / (alpha**2 + sigma**2)
        square = {DPS: 0 * eye, PiGDM: r2 * a @ a.mT, MMPS: a @ v @ a.mT}[method]
        r = torch.linalg.solve(std**2 * eye + square, (problem.y.flatten(1) - x0 @ a.mT).mT).mT
        found = guided(DATA, sch, guide, head).x0(x, t).flatten(1).detach()
        torch.testing.assert_close(found, x0 + r @ a @ v, rtol=1e-9, atol=1e-9)
        if method is MMPS:
            exact = [posterior(DATA, LinearProblem(A, y[None], std)) for y in problem.y]
            wanted = torch.cat([p.denoiser(sch).x0(x[k : k + 1], t) for k, p in enumerate(exact)])
            torch.testing.assert_close(found, wanted.flatten(1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("std", [0.0, 0.4])
@pytest.mark.parametrize("name", OPERATORS)
def test_pigdm_is_exact_for_isotropic_data(name: str, std: float) -> None:
    """V is r^2 there, also without noise: the samples are those of the posterior's own denoiser."""
    sch, A, x = logsnr.VPLinear(), OPERATORS[name], random(1, 1, 4, 4)
    data = Gaussian(0.3 * torch.ones(1, 4, 4, dtype=F64), 0.7 * torch.eye(16, dtype=F64))
    problem = LinearProblem(A, A(data.sample(1, generator=torch.Generator().manual_seed(0))), std)
    found = logsnr.sample(guided(data, sch, PiGDM(problem, 0.7), "eps"), x, solver="dpmpp-2m", steps=12)
    wanted = logsnr.sample(posterior(data, problem).denoiser(sch), x, solver="dpmpp-2m", steps=12)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


def test_orthonormal_rows() -> None:
    """A A^T = 1 leaves J^T A^T (y - A x0) / (std^2 + r^2)."""
    q = torch.linalg.qr(random(16, 5)).Q.mT
    A, x, sch, t = matrix(q, (1, 4, 4)), random(2, 1, 4, 4), logsnr.EDM(), 0.7
    problem = LinearProblem(A, random(2, 5, seed=1), 0.3)
    x0, r2 = DATA.denoiser(sch).x0(x, t), t**2 / (1 + t**2)
    v = covariance(DATA.cov, sch, t)
    wanted = x0.flatten(1) + (problem.y - A(x0)) @ q @ v / (0.3**2 + r2)
    torch.testing.assert_close(guided(DATA, sch, PiGDM(problem)).x0(x, t).flatten(1).detach(), wanted)


def test_dps_is_too_strong_by_a_known_factor() -> None:
    """(std^2 + V)/std^2 in one dimension; a gain of sigma in place of sigma^2/alpha fails this."""

    class Mutant(DPS):
        def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
            return x0 + (super().guide(x0, x, at) - x0) * at.alpha / at.sigma

    data, sch, t = Gaussian(torch.full((1,), 0.3, dtype=F64), 0.5), logsnr.Trigonometric(), 0.7
    problem = LinearProblem(mask(torch.ones(1)), torch.tensor([[1.1]], dtype=F64), 0.2)
    x = torch.tensor([[0.4]], dtype=F64)
    plain, exact = data.denoiser(sch).x0(x, t), guided(data, sch, PiGDM(problem, 0.5)).x0(x, t)
    a, s = float(sch.alpha(t)), float(sch.sigma(t))
    factor = 1 + 0.5 * s**2 / (a**2 * 0.5 + s**2) / 0.04
    for guide, right in ((DPS(problem), True), (Mutant(problem), False)):
        found = ((guided(data, sch, guide).x0(x, t) - plain) / (exact - plain)).item()
        assert (abs(found - factor) < 1e-9) is right


def test_dps_is_freedom_with_the_misfit_as_energy() -> None:
    A, x = OPERATORS["blur"], random(3, 1, 4, 4)
    y = random(3, 1, 4, 4, seed=1)

    def misfit(x0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (y - A(x0)).square().flatten(1).sum(1) / (2 * 0.5**2)

    energy = FreeDoM(misfit, lambda lam: 1 + 0 * lam, {"y": y})
    runs = [
        logsnr.sample(guided(DATA, logsnr.EDM(), guide), 80 * x, solver="ddim", steps=20)
        for guide in (DPS(LinearProblem(A, y, 0.5)), energy)
    ]
    torch.testing.assert_close(*runs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mask", "superresolution", "gray"])
def test_projection_is_score_sde_with_the_noise_of_the_start(name: str) -> None:
    """x <- x + A^+ (y_t - A x) at every state, y_t = alpha y + sigma A eps (Song et al. 2021); the sign that
    the book prints (erratum 8.3) goes away from y."""
    sch, solver = logsnr.VPLinear(), "ddim"
    A = {"mask": OPERATORS["mask"], "superresolution": superresolution(2), "gray": gray()}[name]
    data = DATA if name != "gray" else Gaussian(torch.zeros(3, dtype=F64), 0.5 * torch.eye(3, dtype=F64) + 0.5)
    x = random(2, *data.event_shape)
    y, grid = A(random(1, *data.event_shape, seed=1)), logsnr.grid(sch, 8)
    ends = {}
    for sign in (1, -1):
        now, eps = x.clone(), (A(x) - sch.alpha(1.0) * y) / sch.sigma(1.0)  # of what is known
        for s, t in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
            now = logsnr.sample(data.denoiser(sch), now, solver=solver, grid=[s, t])
            known = sch.alpha(t) * y + sch.sigma(t) * eps
            now = now + sign * A.pseudo_inverse(known - A(now))
        ends[sign] = now
    found = logsnr.sample(guided(data, sch, Projection(LinearProblem(A, y))), x, solver=solver, grid=grid)
    torch.testing.assert_close(found, ends[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(A(found), sch.alpha(t) * y + sch.sigma(t) * eps, rtol=1e-10, atol=1e-10)
    assert (A(ends[-1]) - y).abs().max() > 1


def test_ilvr() -> None:
    """Low frequencies are the reference's, and others are not touched; an operator stands for A^+ A."""
    sch, x, A = logsnr.EDM(), random(2, 1, 4, 4), superresolution(2)
    reference = random(2, 1, 4, 4, seed=1)

    def low(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (2, 2)).unflatten(-3, (2, 2)).mean((-1, -3), keepdim=True).expand(
            *x.shape[:-2], 2, 2, 2, 2
        ).reshape(x.shape)  # fmt: skip

    one, two, three = (
        logsnr.sample(guided(DATA, sch, guide), 80 * x, solver="dpmpp-2m", steps=6)
        for guide in (ILVR(A, reference), ILVR(low, reference), Projection(LinearProblem(A, A(reference))))
    )
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, three)
    torch.testing.assert_close(A(one), A(reference), rtol=0, atol=1e-2)
    x0 = DATA.denoiser(sch).x0(x, 0.5)
    new = guided(DATA, sch, ILVR(A, reference)).x0(x, 0.5)
    torch.testing.assert_close(new - low(new), x0 - low(x0))


def test_functions_in_the_dtype_of_x0() -> None:
    """An operator that knows float64 alone goes with a model of float64, from a start in fp32."""
    a = random(5, 16)
    A = operator(lambda x: x.flatten(1) @ a.mT, lambda y: (y @ a).reshape(-1, 1, 4, 4), (1, 4, 4))
    problem = LinearProblem(A, A(random(1, 1, 4, 4)), 0.3)
    dense_problem = LinearProblem(matrix(a, (1, 4, 4)), problem.y, 0.3)
    one, two = (
        logsnr.sample(guided(DATA, logsnr.EDM(), PiGDM(p)), 80 * random(2, 1, 4, 4).float(), solver="ddim", steps=3)
        for p in (problem, dense_problem)
    )
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_mmps_by_iterations() -> None:
    """Each conjugate gradient comes nearer to the exact answer."""
    A, x, sch = OPERATORS["mask"], random(2, 1, 4, 4), logsnr.EDM()
    problem = LinearProblem(A, A(random(1, 1, 4, 4, seed=1)), 0.1)
    exact = posterior(DATA, problem).denoiser(sch).x0(x, 0.5)
    errors = [(guided(DATA, sch, MMPS(problem, n)).x0(x, 0.5) - exact).detach().norm().item() for n in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * errors[0]


def test_a_network_whose_covariance_is_none() -> None:
    """J of digits-net is not quite symmetric and positive: conjugate gradients that do not stop there end at 1e2."""
    A, std = superresolution(2), 0.1
    y = A(load_digits(split="test")[0][:4].float())
    y = y + std * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    den = logsnr.Denoiser(load_digits_net(), SCHEDULE, PREDICTION, map_x0=MMPS(LinearProblem(A, y, std), 10))
    found = logsnr.sample(den, logsnr.start(SCHEDULE, (4, 1, 8, 8), seed=0), solver="dpmpp-2m", steps=20)
    assert 0.07 < (A(found) - y).square().mean().sqrt() < 0.14


def test_bad_input() -> None:
    y = torch.zeros(1, 1, 4, 4)
    problem = LinearProblem(mask(torch.ones(4, 4)), y)
    with pytest.raises(TypeError, match=r"problem must be a logsnr\.control\.LinearProblem, not Tensor"):
        PiGDM(y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DPS divides by std, which is 0"):
        DPS(problem)
    with pytest.raises(ValueError, match="scale must be finite"):
        DPS(LinearProblem(problem.A, y, 0.1), float("nan"))
    with pytest.raises(ValueError, match="variance must be positive"):
        PiGDM(problem, 0.0)
    with pytest.raises(ValueError, match="iterations must be a whole number"):
        MMPS(problem, 0)
    with pytest.raises(TypeError, match="low_pass must be a function"):
        ILVR(3, y)  # type: ignore[arg-type]
    for guide, message in (
        (ILVR(lambda x: x, torch.zeros(3, 1, 4, 4)), r"reference has shape \(3, 1, 4, 4\)"),
        (ILVR(lambda x: x[..., 0], y), "low_pass returned shape"),
    ):
        with pytest.raises(ValueError, match=message):
            logsnr.sample(guided(DATA, logsnr.EDM(), guide), torch.zeros(2, 1, 4, 4), steps=2)
