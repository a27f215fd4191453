"""sampler_moments against closed forms, the executor on basis vectors, and Monte Carlo."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.metrics import kl_gaussian, w2_gaussian
from logsnr.analysis.moments import Moments, propagate, sampler_moments
from logsnr.solvers.catalogue.planning import plan_program
from logsnr.solvers.programs.lower import lower
from logsnr.solvers.runs.run import run

F64 = torch.float64
SCH = logsnr.VPLinear()
FIXED = [n for n in logsnr.solver_names() if logsnr.solver(n).planner and not logsnr.solver(n).stochastic]
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.3, 0.0], [-0.2, 0.4, 0.05]], dtype=F64)
MEAN = [1.0, -2.0, 0.5]
DATA = {
    "scalar": Gaussian(0.7, 0.25),
    "scalar, shaped": Gaussian(MEAN, 0.25),
    "diagonal": Gaussian(MEAN, [0.25, 1e-4, 4.0]),
    "full": Gaussian(MEAN, ROOT @ ROOT.mT),
}


def matrix(cov: torch.Tensor, size: int) -> torch.Tensor:
    return cov if cov.ndim == 2 else torch.diag(cov.expand(size))


def recovered(
    data: Gaussian, sch: logsnr.Schedule, program: logsnr.Program, **options: object
) -> tuple[torch.Tensor, ...]:
    """Mean and covariance of the end from the affine map x -> A x + b that `logsnr.sample` turns out to be."""
    size = max(1, data.mean.numel())
    s = program.grid[0]
    mean, cov = data.marginal(sch, s)
    mean, scale = mean.expand(size), sch.sigma(s)
    x = torch.cat([mean[None], mean + scale * torch.eye(size, dtype=F64)])
    y = logsnr.sample(data.denoiser(sch), x, **options)
    jacobian = (y[1:] - y[0]).mT / scale
    return y[0], jacobian @ matrix(cov, size) @ jacobian.mT


@pytest.mark.parametrize(("name", "form", "startup"), sampled(FIXED, DATA, ["ramp", "single-step"], every=4))
def test_the_executor_is_this_affine_map(name: str, form: str, startup: str) -> None:
    """Mean and covariance are those of the affine map recovered from sample on basis vectors, to 1e-12."""
    data = DATA[form]
    moments = sampler_moments(name, data, SCH, steps=6, startup=startup)  # type: ignore[arg-type]
    mean, cov = recovered(data, SCH, moments.program, solver=name, steps=6, startup=startup)
    size = len(mean)
    tol = 1e-12 * cov.abs().max().item()
    torch.testing.assert_close(moments.mean.expand(size), mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(matrix(moments.cov, size), cov, rtol=1e-12, atol=tol)
    assert moments.cov.shape == data.cov.shape
    assert moments.nfe == len(moments.program)


@pytest.mark.parametrize("sch", [logsnr.EDM(), logsnr.FlowMatching(), logsnr.VPCosine()], ids=repr)
@pytest.mark.parametrize("grid", ["logsnr", "karras", "time"])
def test_all_schedules_and_grids(sch: logsnr.Schedule, grid: str) -> None:
    """The same holds on other schedules and grids, to clean data too (1e-11: FlowMatching's weights cancel)."""
    for name in ("ddim", "dpmpp-2m", "deis-3"):
        options = {"solver": name, "steps": 7, "grid": grid}
        moments = sampler_moments(name, DATA["full"], sch, steps=7, grid=grid)
        mean, cov = recovered(DATA["full"], sch, moments.program, **options)
        torch.testing.assert_close(moments.mean, mean, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(moments.cov, cov, rtol=1e-11, atol=1e-11)


def test_ddim_step_in_closed_form() -> None:
    """One DDIM step multiplies deviations by (alpha_s alpha_t c + sigma_s sigma_t) / R_s^2, to 1e-14."""
    s, t, c = 0.8, 0.3, 0.25
    moments = sampler_moments("ddim", Gaussian(0.7, c), SCH, grid=[s, t])
    (a_s, s_s), (a_t, s_t) = ((SCH.alpha(u), SCH.sigma(u)) for u in (s, t))
    r2 = a_s**2 * c + s_s**2
    gain = (a_s * a_t * c + s_s * s_t) / r2
    assert moments.mean.item() == pytest.approx(a_t * 0.7, rel=1e-14)
    assert moments.cov.item() == pytest.approx(gain**2 * r2, rel=1e-14)
    spread = math.sqrt(a_t**2 * c + s_t**2)
    assert moments.w2 == pytest.approx(spread - gain * math.sqrt(r2), rel=1e-12)
    assert moments.kl == pytest.approx(kl_gaussian(0.0, gain**2 * r2, 0.0, spread**2), rel=1e-12)


@pytest.mark.parametrize("sch", [SCH, logsnr.EDM(), logsnr.FlowMatching()], ids=repr)
def test_ddim_is_exact_on_a_point_mass(sch: logsnr.Schedule) -> None:
    """DDIM sends the marginal of a point mass to its exact marginal: mean, covariance, W2 and KL to 1e-13."""
    data = Gaussian([3.0, -1.0], 0.0)
    moments = sampler_moments("ddim", data, sch, steps=5)
    mean, cov = data.marginal(sch, moments.program.grid[-1])
    torch.testing.assert_close(moments.mean, mean, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(moments.cov, cov, rtol=1e-13, atol=1e-13)
    assert moments.w2 < 1e-13
    assert moments.kl < 1e-13


def test_ddim_is_exact_on_wide_data() -> None:
    """Data of std 1e8, far above the noise, keep it in three DDIM steps, to 1e-12."""
    moments = sampler_moments("ddim", Gaussian(0.0, 1e16), logsnr.EDM(), steps=3)
    assert moments.cov.item() == pytest.approx(1e16, rel=1e-12)


@pytest.mark.parametrize("form", DATA)
def test_distances_are_those_of_the_returned_moments(form: str) -> None:
    """w2 and kl are the metrics of the returned mean and covariance and of the exact marginal, and vanish."""
    data = DATA[form]
    moments = sampler_moments("heun", data, SCH, steps=4)
    mean, cov = data.marginal(SCH, moments.program.grid[-1])
    assert moments.w2 == pytest.approx(w2_gaussian(moments.mean, moments.cov, mean, cov), rel=1e-9)
    assert moments.kl == pytest.approx(kl_gaussian(moments.mean, moments.cov, mean, cov), rel=1e-9)
    assert sampler_moments("heun", data, SCH, steps=64).w2 < 0.05 * moments.w2


def within_standard_errors(x: torch.Tensor, moments: Moments) -> None:
    """Mean and covariance of samples (N, D) within 4.5 standard errors, each entry."""
    n, size = x.shape
    cov = matrix(moments.cov, size)
    sd = cov.diagonal().sqrt()
    assert ((x.mean(0) - moments.mean).abs() < 4.5 * sd / math.sqrt(n)).all()
    error = torch.sqrt((cov**2 + torch.outer(sd, sd) ** 2) / n)
    assert ((x.mT.cov() - cov).abs() < 4.5 * error).all()


@pytest.mark.parametrize("name", ["ddim", "deis-4", "dpmpp-2m", "dpmpp-3s", "heun"])
def test_monte_carlo(name: str) -> None:
    """20,000 samples drawn by the solver from the exact start have these moments within 4.5 standard errors."""
    data, n, g = DATA["full"], 20_000, torch.Generator().manual_seed(3)
    moments = sampler_moments(name, data, SCH, steps=5)
    s = moments.program.grid[0]
    noise = torch.randn(n, 3, generator=g, dtype=F64)
    x = SCH.alpha(s) * data.sample(n, generator=g) + SCH.sigma(s) * noise
    within_standard_errors(logsnr.sample(data.denoiser(SCH), x, solver=name, steps=5), moments)


def ancestral(grid: np.ndarray) -> logsnr.Program:
    """Steps with noise (DDIM with eta = 1, Song et al. 2021, eq. 16) that keep every second noise in slot 1 and
    add a part of it to the next step: noises that come back."""
    calls = []
    for n, (s, t) in enumerate(zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True)):
        (a_s, s_s), (a_t, s_t) = ((SCH.alpha(u), SCH.sigma(u)) for u in (s, t))
        std = s_t / s_s * math.sqrt(1 - (a_s / a_t) ** 2)
        rest = math.sqrt(s_t**2 - std**2)
        if n % 2 == 0:
            rows = np.array([[a_t, rest, 0.6 * std, 0.8 * std], [0.0, 0.0, 1.0, 0.0]])
            noises = ((s, t), (s, t, 1))
            calls.append(logsnr.Call(s, (), (0, 1), rows, noises=noises, node=n + 1))
        else:
            rows = np.array([[a_t, rest, 0.3 * std, std]])
            calls.append(logsnr.Call(s, (1,), (0,), rows, noises=((s, t),), node=n + 1))
    if (len(grid) - 1) % 2:
        calls[-1] = replace(calls[-1], writes=(0,), matrix=calls[-1].matrix[:1])
    return logsnr.Program("ancestral", 1, tuple(map(float, grid)), tuple(calls))


def test_noise_columns_against_monte_carlo() -> None:
    """A program with noises, one of them used by two steps, has the moments of its own run on 20,000 samples."""
    data, n, g = DATA["diagonal"], 20_000, torch.Generator().manual_seed(4)
    program = ancestral(logsnr.grid(SCH, 6))
    moments = sampler_moments(program, data, SCH)
    s = program.grid[0]
    x = SCH.alpha(s) * data.sample(n, generator=g) + SCH.sigma(s) * torch.randn(n, 3, generator=g, dtype=F64)
    low = lower(program, SCH, "x0", state=F64, model=F64)
    y = run(low, data.denoiser(SCH), x, noise=lambda key, like: torch.randn(like.shape, generator=g, dtype=F64))[0]
    within_standard_errors(y, moments)


def test_ancestral_steps_are_exact_on_a_point_mass() -> None:
    """One ancestral step keeps the marginal of a point mass, sigma_t^2, to 1e-13, its noise included."""
    program = ancestral(logsnr.grid(SCH, 1, t_start=0.9, t_end=0.2))
    moments = sampler_moments(program, Gaussian(2.0, 0.0), SCH)
    assert moments.cov.item() == pytest.approx(SCH.sigma(0.2) ** 2, rel=1e-13)
    assert moments.w2 < 1e-13


def test_the_same_noise_twice_is_one_noise() -> None:
    """Adding a noise, keeping it, and taking it off again leaves no variance; two keys would leave two."""

    def program(second: tuple[float, float]) -> logsnr.Program:
        first = logsnr.Call(0.9, (0,), (0,), np.array([[0.0, 0.0, 1.0, 1.0]]), noises=((0.9, 0.5),))
        last = logsnr.Call(0.5, (0,), (0,), np.array([[0.0, 0.0, 1.0, -1.0]]), noises=(second,), node=1)
        return logsnr.Program("twice", 1, (0.9, 0.1), (first, last))

    data = Gaussian(0.0, 0.5)
    start = SCH.alpha(0.9) ** 2 * 0.5 + SCH.sigma(0.9) ** 2
    assert sampler_moments(program((0.9, 0.5)), data, SCH).cov.item() == pytest.approx(start, rel=1e-15)
    assert sampler_moments(program((0.5, 0.1)), data, SCH).cov.item() == pytest.approx(start + 2, rel=1e-15)


def per_element(scale: list[float]) -> logsnr.Program:
    """One step x_t = s (alpha_t x0 + sigma_t eps) with one s per element."""
    t = 0.3
    rows = np.array([[np.array(scale) * SCH.alpha(t), np.array(scale) * SCH.sigma(t)]])
    return logsnr.Program("scaled", 1, (0.9, t), (logsnr.Call(0.9, (), (0,), rows, node=1),))


@pytest.mark.parametrize("cov", [0.5, [0.5, 0.5, 0.5]])
def test_per_element_coefficients(cov: object) -> None:
    """Coefficients per element act on each element; the covariance is then diagonal."""
    data, scale = Gaussian(MEAN, cov), [1.0, 2.0, -0.5]
    plain = sampler_moments("ddim", data, SCH, grid=[0.9, 0.3])
    moments = sampler_moments(per_element(scale), data, SCH)
    s = torch.tensor(scale, dtype=F64)
    torch.testing.assert_close(moments.mean, s * plain.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(moments.cov, s**2 * plain.cov, rtol=1e-14, atol=0)


def test_per_element_coefficients_that_do_not_commute_are_refused() -> None:
    """Per-element coefficients with a full covariance or another event shape raise ValueError."""
    with pytest.raises(ValueError, match="do not commute with a full covariance"):
        sampler_moments(per_element([1.0, 2.0, 3.0]), DATA["full"], SCH)
    with pytest.raises(ValueError, match=r"event shape \(3,\), but gaussian \(2,\)"):
        sampler_moments(per_element([1.0, 2.0, 3.0]), Gaussian([0.0, 0.0], 1.0), SCH)


def test_narrow_modes_lose_no_digits() -> None:
    """Coefficients of modes down to std 1e-9 are those of exact rational arithmetic, to 1e-12 relative."""
    sch = logsnr.EDM(sigma_min=1e-9)
    program = plan_program("dpmpp-3m", sch, steps=8)
    variances = np.geomspace(1e-18, 1.0, 4)
    end = propagate(program, sch, variances)
    exact = propagate(program, sch, variances, lift=lambda a: np.asarray(np.frompyfunc(Fraction, 1, 1)(a)))
    np.testing.assert_allclose(end.start, exact.start.astype(float), rtol=1e-12)
    np.testing.assert_allclose(end.mean, exact.mean.astype(float), rtol=1e-12)
