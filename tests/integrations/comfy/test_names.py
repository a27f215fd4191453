"""ComfyUI's names are ComfyUI's formulas, each against a plain loop, and the orders that they have."""

import math
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from comfy_loops import LOOPS

import logsnr
from logsnr import analysis
from logsnr.integrations import k_diffusion
from logsnr.integrations.comfy import names as comfy_names
from logsnr.integrations.comfy.flow import FlowMidpoint
from logsnr.integrations.comfy.guided import TwoAnswers
from logsnr.integrations.comfy.planners import HeunPlus, StochasticMidpoint
from logsnr.solvers.planners.multistep import Adams

RAMP = np.linspace(0, 1, 9)
SIGMAS = np.append((14.6 ** (1 / 7) + RAMP * (0.03 ** (1 / 7) - 14.6 ** (1 / 7))) ** 7, 0.0)
X = 14.6 * logsnr.randn((16,), seed=0, dtype=torch.float64)
DATA = analysis.two_gaussians()
EXACT = DATA.denoiser(logsnr.EDM(), "x0")
CONST = type("CONST", (), {})


class Comfy:
    """A model of ComfyUI with guidance; its time runs from sigma = 5 at 20 % to 0.5 at 80 %."""

    model_sampling = type("EPS", (), {"percent_to_sigma": lambda self, p: {0.2: 5.0, 0.8: 0.5}[p]})()

    def answers(self, x: torch.Tensor, sigma: Any) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
        return 1.1 * EXACT.x0(x + 0.3, sigma), EXACT.x0(x, sigma)

    def __call__(self, x: torch.Tensor, sigma: Any, model_options: Any = None, seed: int | None = None) -> torch.Tensor:
        guided, other = self.answers(x, sigma)
        for function in (model_options or {}).get("sampler_post_cfg_function", ()):
            guided = function({"denoised": guided, "uncond_denoised": other})
        return guided


def brownian(s: Any, t: Any) -> torch.Tensor:
    """Increments of one path over sigma, as a Brownian tree gives them."""
    path = lambda u: torch.sin(X * 3 + 4 * math.sqrt(float(u)))  # noqa: E731
    return (path(s) - path(t)) / math.sqrt(float(s) - float(t))


@pytest.mark.parametrize("name", LOOPS)
def test_names_are_their_loops(name: str) -> None:
    model = Comfy()
    wanted = LOOPS[name](model.answers, X, SIGMAS.tolist(), brownian)
    options: dict[str, Any] = {"noise_sampler": brownian}
    found = k_diffusion.sampler(name)(model, X, SIGMAS, {"model_options": {}}, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    nearest = {"compat": False} if name in comfy_names.NEAREST and name not in ("seeds_2", "seeds_3") else {}
    if nearest:  # ours under its own name is another formula
        assert not torch.allclose(k_diffusion.sampler(name, **nearest)(model, X, SIGMAS, **options), wanted, 1e-5, 1e-5)


def test_their_options() -> None:
    """max_order, max_stage, r and ge_gamma by their names; eta of SDEs is the square of ours; bad ones are refused."""
    model, z = Comfy(), {"noise_sampler": brownian}

    def run(name: str, **options: Any) -> torch.Tensor:
        return k_diffusion.sampler(name, **options)(model, X, SIGMAS, **z)

    assert torch.equal(run("dpmpp_3m_sde", eta=0.25), run("sde-dpmpp-3m", eta=0.5, compat=True))
    assert torch.equal(run("seeds_2", r=0.5, eta=0.25), run("sde-dpmpp-2s", eta=0.5))
    assert torch.equal(run("seeds_3", eta=0.25, r_2=2 / 3), run("sde-dpmpp-3s", eta=0.5))
    assert torch.equal(run("deis", max_order=2), run("deis-2", compat="comfyui"))
    assert torch.equal(run("er_sde", max_stage=2), run("er-sde-2", compat="comfyui"))
    assert torch.equal(run("ipndm", max_order=3), run("ipndm-3"))
    assert torch.equal(run("gradient_estimation", ge_gamma=1.5), run("gradient-estimation", gamma=1.5))
    assert torch.equal(run("seeds_2", solver_type="phi_2", r=1.0, eta=0.0), run("exp_heun_2_x0"))
    assert not torch.equal(run("sa_solver"), run("sa_solver", tau=1.0))
    for name, options, said in (
        ("seeds_2", {"r": 0.0}, "r = 0.0 must be a fraction"),
        ("seeds_2", {"solver_type": "phi_3"}, "solver_type = 'phi_3'"),
        ("seeds_3", {"r_1": 2.0}, "r_1 = 2.0 must be a fraction"),
        ("dpmpp_sde", {"eta": 2.0}, "eta"),
        ("dpmpp_sde", {"r": 1.0}, "r = 1.0"),
        ("euler_cfg_pp", {"eta": 0.5}, "eta = 0.5 is not an option"),
    ):
        with pytest.raises(ValueError, match=said):
            k_diffusion.sampler(name, **options)


def test_exponential_heun_for_the_sde() -> None:
    """Its drift, without noise: x0 linear in lam between both ends of the step, under the kernel of eta = 1."""
    model, x = Comfy(), X
    for s, t in pairwise(SIGMAS[:-1].tolist()):
        h, x0 = 2 * math.log(s / t), model(x, s)
        e, phi2 = math.exp(-h), 1 + math.expm1(-h) / h
        x = e * x + (1 - e) * x0 + phi2 * (model(e * x + (1 - e) * x0, t) - x0)
    for name, options in (("exp_heun_2_x0_sde", {}), ("seeds_2", {"solver_type": "phi_2", "r": 1.0})):
        found = k_diffusion.sampler(name, **options)(model, X, SIGMAS[:-1], noise_sampler=brownian, s_noise=0.0)
        torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_guidance_must_be_seen() -> None:
    """CFG++ asks for both answers once each state, leaves the caller's options alone, and refuses other models."""
    calls: list[float] = []

    class Counting(Comfy):
        def __call__(self, x: torch.Tensor, sigma: Any, **more: Any) -> torch.Tensor:
            calls.append(float(sigma[0]))
            assert more["model_options"]["disable_cfg1_optimization"]
            return super().__call__(x, sigma, **more)

    extra, told = {"model_options": {"sampler_post_cfg_function": []}}, list[Any]()
    k_diffusion.sampler("dpmpp_2m_cfg_pp")(Counting(), X, SIGMAS, extra, told.append)
    assert calls == SIGMAS[:-1].tolist()
    assert [info["i"] for info in told] == list(range(9))
    assert extra == {"model_options": {"sampler_post_cfg_function": []}}
    with pytest.raises(ValueError, match=r"CFG\+\+ needs a model of ComfyUI"):
        k_diffusion.sampler("euler_cfg_pp")(lambda x, sigma, **more: x, X, SIGMAS)


class Flow:
    """x = (1 - sigma) x0 + sigma eps, as ComfyUI wraps it."""

    model_sampling = type("Flux", (CONST,), {"percent_to_sigma": lambda self, p: 1 - p})()
    exact = DATA.denoiser(logsnr.FlowMatching(), "velocity")

    def __call__(self, x: torch.Tensor, sigma: Any) -> torch.Tensor:
        return self.exact.x0(x, torch.as_tensor(sigma, dtype=torch.float64).expand(len(x)))


def test_flow_models() -> None:
    """Their ancestral Euler; others with noise in their own log-SNR, from a first sigma a little below 1."""
    flow, sigmas, x = Flow(), np.linspace(0.99, 0.0, 9), X / 14.6
    wanted = x
    for s, t in pairwise(sigmas.tolist()):
        x0, down = flow(wanted, s), t * (1 + 0.5 * (t / s - 1))
        wanted = down / s * wanted + (1 - down / s) * x0
        scale = (1 - t) / (1 - down)
        wanted = scale * wanted + math.sqrt(t * t - (down * scale) ** 2) * (brownian(s, t) if t else 0)
    found = k_diffusion.sampler("euler_ancestral", eta=0.5)(flow, x, sigmas, noise_sampler=brownian)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    sigmas[0], moved = 1.0, sigmas.copy()
    moved[0] = 1 - 1e-4
    seen: list[float] = []
    for levels in (sigmas, moved):
        watch = lambda info: seen.append(float(info["sigma"]))  # noqa: E731
        end = k_diffusion.sampler("dpmpp_2m_sde")(flow, x, levels, None, watch, noise_sampler=brownian)
        assert torch.isfinite(end).all()
    assert seen[:8] == seen[8:]
    den = logsnr.Denoiser(flow, logsnr.FlowMatching(), "x0")
    ours = logsnr.sample(den, x, solver=logsnr.solver("sde-dpmpp-2s", eta=0.0), grid=moved)
    ends = [k_diffusion.sampler(name, eta=0.0)(flow, x, sigmas) for name in ("dpmpp_sde", "seeds_2")]
    for end in ends:
        torch.testing.assert_close(end, ours, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "first"), list(product(("dpm_2_ancestral", "dpmpp_2s_ancestral"), (0.99, 1.0))))
def test_two_stages_of_flow_models(name: str, first: float) -> None:
    """Both stages lead to less noise than the next sigma has, and the noise is as in euler_ancestral."""
    flow, sigmas, x, eta = Flow(), np.linspace(first, 0.0, 9), X / 14.6, 0.8
    wanted, odds = x, lambda u: u / (1 - u)
    for s, t in pairwise(sigmas.tolist()):
        x0, down = flow(wanted, s), t * (1 + eta * (t / s - 1))
        if t == 0:
            wanted = x0
            continue
        if name == "dpm_2_ancestral":
            mid = math.sqrt(s * down)
            stage = wanted + (mid - s) / s * (wanted - x0)
            wanted = wanted + (down - s) / mid * (stage - flow(stage, mid))
        else:
            mid = 0.9999 if s == 1 else 1 / (1 + math.sqrt(1 / odds(s) / odds(down)))
            stage = mid / s * wanted + (1 - mid / s) * x0
            wanted = down / s * wanted + (1 - down / s) * flow(stage, mid)
        scale = (1 - t) / (1 - down)
        wanted = scale * wanted + math.sqrt(t * t - (down * scale) ** 2) * brownian(s, t)
    found = k_diffusion.sampler(name, eta=eta)(flow, x, sigmas, noise_sampler=brownian)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    other = k_diffusion.sampler(name, eta=eta, compat=False)(flow, x, sigmas.clip(0, 0.999), noise_sampler=brownian)
    assert not torch.allclose(other, wanted, 1e-4, 1e-4)


@pytest.mark.parametrize("gauge", ["x0", "straight"])
def test_orders_on_flow_models(gauge: str) -> None:
    """Without noise, halving steps from 64 to 128; the stage half way in log sigma is the midpoint as steps shrink. A
    stage elsewhere, the mutant, is of order 1."""
    planner, den = FlowMidpoint(gauge, eta=0.0), logsnr.Denoiser(Flow(), logsnr.FlowMatching(), "x0")
    run = lambda method, n: logsnr.sample(den, X / 14.6, solver=method, grid=np.linspace(0.95, 0.05, n + 1))  # noqa: E731
    exact = run("ho4", 100)
    mutant = type("Mutant", (FlowMidpoint,), {"_middle": lambda self, s, down: 0.45 * s + 0.55 * down})(gauge, eta=0.0)
    orders = []
    for method in (planner, mutant):
        errors = [float((run(method, n) - exact).square().mean().sqrt()) for n in (64, 128)]
        orders.append(math.log2(errors[0] / errors[1]))
    assert abs(orders[0] - planner.global_order) < 0.25
    assert orders[1] < 1.3


ORDERS = {
    "deis": (Adams("eps", 3, "t", moments="sum-in-time", startup="single-step"), 3),
    "ipndm_v": (Adams("eps", 4, "rho", moments="variable-steps", startup="single-step"), 2),
    "uni_pc": (Adams(order=3, corrector=True, closing="ramp", startup="single-step"), 2),
    "sa_solver": (Adams(order=3, corrector=True, closing="ramp-both", startup="single-step"), 2),
    "heunpp2": (HeunPlus(), 1),
    "dpmpp_sde": (StochasticMidpoint(eta=0.0, r=0.4), 2),
    "res_multistep": (TwoAnswers("res", guided=False), 2),
    "dpmpp_2m": (TwoAnswers("dpmpp-2m", guided=False), 2),
}


@cache
def reference() -> torch.Tensor:
    return logsnr.sample(EXACT, X, solver="ho4", grid=logsnr.grid(logsnr.EDM(0.1, 14.6), 250, "karras"))


@pytest.mark.parametrize("name", ORDERS)
def test_orders_are_those_declared(name: str) -> None:
    """Halving steps from 64 to 128 on the Karras grid; the full closing of UniPC, its mutant, is of higher order."""
    planner, order = ORDERS[name]
    assert planner.global_order == order

    def error(method: Any, n: int) -> float:
        grid = logsnr.grid(logsnr.EDM(0.1, 14.6), n, "karras")
        return float((logsnr.sample(EXACT, X, solver=method, grid=grid) - exact).abs().max())

    exact = reference()
    slope = lambda method, n=64: math.log2(error(method, n) / error(method, 2 * n))  # noqa: E731
    assert order - 0.4 < slope(planner) < order + 0.4
    if name == "uni_pc":
        assert slope(Adams(order=3, corrector=True, startup="single-step"), 128) > order + 0.6


def test_er_sde_is_first_order_by_its_sums() -> None:
    """In the end: the integrals' error is that of the left point rule on 200 points, whatever the step."""
    assert Adams("x0", 3, "rho", moments="sum-in-rho", startup="single-step").global_order == 1
    assert logsnr.solver("er-sde-3", compat=True).order == 1
    assert logsnr.solver("er-sde-3").order == 2


def test_fields_are_refused() -> None:
    for fields, said in (
        ({"closing": "early"}, "closing must be 'whole', 'ramp' or 'ramp-both', not 'early'"),
        ({"moments": "sum-in-rho", "order": 4}, "moments = 'sum-in-rho' is for at most 3 values and no corrector"),
        ({"moments": "sum-in-time", "corrector": True}, "no corrector"),
    ):
        with pytest.raises(ValueError, match=said):
            Adams(**fields)  # type: ignore[arg-type]
    for bad in ({"loop": "x"}, {"eta": -1.0}, {"guided": 2}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            TwoAnswers(**bad)  # type: ignore[arg-type]
