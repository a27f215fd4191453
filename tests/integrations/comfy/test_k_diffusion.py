"""Samplers with k-diffusion's signature, against its loops as the papers have them."""

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis
from logsnr.integrations import comfyui, k_diffusion

DATA = analysis.two_gaussians()
SIGMAS = torch.cat([torch.from_numpy(np.geomspace(14.6, 0.03, 8)), torch.zeros(1)]).float()
X = 14.6 * logsnr.randn((16,), seed=0, dtype=torch.float64)
EXACT = DATA.denoiser(logsnr.EDM(), "x0")


def model(x: torch.Tensor, sigma: torch.Tensor, shift: float = 0.0, seed: int | None = None) -> torch.Tensor:
    """The exact denoised data."""
    return EXACT.x0(x - shift, sigma) + shift


def slope(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return (x - model(x, torch.full((len(x),), sigma, dtype=torch.float64))) / sigma


def euler(x: torch.Tensor, s: float, t: float, old: Any) -> torch.Tensor:
    return x + (t - s) * slope(x, s)


def heun(x: torch.Tensor, s: float, t: float, old: Any) -> torch.Tensor:
    d = slope(x, s)
    return x + (t - s) * d if t == 0 else x + (t - s) * (d + slope(x + (t - s) * d, t)) / 2


def dpm_2(x: torch.Tensor, s: float, t: float, old: Any) -> torch.Tensor:
    d = slope(x, s)
    if t == 0:
        return x + (t - s) * d
    middle = math.sqrt(s * t)
    return x + (t - s) * slope(x + (middle - s) * d, middle)


def dpmpp_2m(x: torch.Tensor, s: float, t: float, old: Any) -> torch.Tensor:
    """Lu et al. 2022b, algorithm 2, with the published weights."""
    x0 = model(x, torch.full((len(x),), s, dtype=torch.float64))
    d, h = x0, math.log(s / t) if t else math.inf
    if old and t:
        r = math.log(old[-1][0] / s) / h
        d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * old[-1][1]
    old.append((s, x0))
    return (t / s) * x - math.expm1(-h) * d


@pytest.mark.parametrize("step", [euler, heun, dpm_2, dpmpp_2m])
def test_names_are_the_loops_of_their_papers(step: Callable[..., torch.Tensor]) -> None:
    x, old = X, list[Any]()
    for s, t in pairwise(SIGMAS.double().tolist()):
        x = step(x, s, t, old)
    sample = getattr(k_diffusion, f"sample_{step.__name__}")
    torch.testing.assert_close(sample(model, X, SIGMAS), x, rtol=1e-9, atol=1e-9)
    wide = sample(model, X.float(), SIGMAS)
    assert wide.dtype is torch.float32
    torch.testing.assert_close(wide, x.float(), rtol=1e-4, atol=1e-4)


def test_arguments_go_where_they_belong() -> None:
    """extra_args to the model; callback once a step, before it, with what the model has seen and answered."""
    told: list[dict[str, Any]] = []

    def watch(info: dict[str, Any]) -> None:
        told.append({name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in info.items()})

    end = k_diffusion.sample_heun(model, X, SIGMAS, {"shift": 1.0}, watch, True)
    assert [info["i"] for info in told] == list(range(8))
    assert torch.equal(told[0]["x"], X)
    torch.testing.assert_close(told[3]["sigma"], SIGMAS[3].double())
    torch.testing.assert_close(told[3]["denoised"], model(told[3]["x"], SIGMAS[3].double(), 1.0))
    assert not torch.allclose(end, k_diffusion.sample_heun(model, X, SIGMAS))
    assert k_diffusion.sample_euler(model, X, SIGMAS[:1]) is X


def test_noise() -> None:
    """Ancestral steps add what noise_sampler gives for their sigmas, times s_noise; a seed is ComfyUI's."""
    asked: list[tuple[float, float]] = []

    def noise_sampler(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append((float(s), float(t)))
        return torch.ones_like(X)

    x = X
    for s, t in pairwise(SIGMAS.double().tolist()):
        up = min(t, math.sqrt(t**2 * (s**2 - t**2) / s**2))
        down = math.sqrt(t**2 - up**2)
        x = x + (down - s) * slope(x, s) + 0.5 * up
    found = k_diffusion.sample_euler_ancestral(model, X, SIGMAS, noise_sampler=noise_sampler, s_noise=0.5)
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)
    assert len(asked) == 7
    a, b, c = (k_diffusion.sample_euler_ancestral(model, X, SIGMAS, {}, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


class Const:
    """Stands for ComfyUI's model_sampling of flow models."""


CONST = type("CONST", (Const,), {})


class Flow:
    """A flow model of ComfyUI: x = (1 - sigma) x0 + sigma eps."""

    model_sampling = type("ModelSamplingFlux", (CONST,), {"sigma_min": 1e-3, "sigma_max": 1.0})()
    exact = DATA.denoiser(logsnr.FlowMatching(), "velocity")

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.exact.x0(x, sigma.double())


def test_flow_models() -> None:
    """By default in sigma, as ComfyUI; in their own log-SNR when asked, and always with noise."""
    flow, x, sigmas = Flow(), logsnr.randn((16,), seed=1, dtype=torch.float64), torch.linspace(0.99, 0.0, 9).double()
    by_sigma = k_diffusion.sample_dpmpp_2m(flow, x, sigmas)
    ours = k_diffusion.sampler("dpmpp-2m", space="logsnr")(flow, x, sigmas)
    den = logsnr.Denoiser(flow, logsnr.FlowMatching(), "x0")
    torch.testing.assert_close(ours, logsnr.sample(den, x, solver="dpmpp-2m", grid=sigmas.numpy()))
    assert not torch.allclose(ours, by_sigma)
    noisy = k_diffusion.sampler("euler-a")(flow, x, sigmas, seed=3)
    torch.testing.assert_close(noisy, logsnr.sample(den, x, solver="euler-a", grid=sigmas.numpy(), seed=3))
    with pytest.raises(ValueError, match="at most 1"):
        k_diffusion.sampler("ddim", space="logsnr")(flow, x, [2.0, 1.0])


def test_programs_bring_their_grid() -> None:
    program = logsnr.solver("dpm-2").program(logsnr.EDM(), SIGMAS.double().numpy())
    found = k_diffusion.sampler(program)(model, X, [14.6, 0.0])
    assert torch.equal(found, k_diffusion.sample_dpm_2(model, X, SIGMAS))
    with pytest.raises(ValueError, match=r"goes from sigma = 14\.6 to 0"):
        k_diffusion.sampler(program)(model, X, [10.0, 0.0])


def test_dpm_fast() -> None:
    calls: list[float] = []

    def counting(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(float(sigma[0]))
        return model(x, sigma)

    end = k_diffusion.sample_dpm_fast(counting, X, 0.03, 14.6, 10)
    assert len(calls) == 10
    assert torch.isfinite(end).all()


def test_all_names_run() -> None:
    names = {name for name in k_diffusion.sample_function_names() if not name.endswith("cfg_pp")}
    names -= {"dpm_fast", "dpm_adaptive"}  # of two sigmas
    for name in names:
        end = getattr(k_diffusion, f"sample_{name}")(model, X[:2], SIGMAS[:4], None, None, True, seed=0)
        assert torch.isfinite(end).all(), name


def test_bad_input() -> None:
    with pytest.raises(AttributeError, match="sample_nothing"):
        _ = k_diffusion.sample_nothing
    with pytest.raises(ValueError, match="space = 'x'"):
        k_diffusion.sampler("ddim", space="x")
    for sigmas, message in (([1.0, 2.0], "must decrease"), ([1.0, -1.0], "must decrease"), ([[1.0]], "list of finite")):
        with pytest.raises(ValueError, match=message):
            k_diffusion.sample_euler(model, X, sigmas)
    with pytest.raises(ValueError, match="s_churn"):
        k_diffusion.sample_heun(model, X, SIGMAS, s_churn=1.0)
    with pytest.raises(ValueError, match="eta"):
        k_diffusion.sample_euler(model, X, SIGMAS, eta=1.0)
    with pytest.raises(ValueError, match="eta = 2 is not an option of euler"):
        k_diffusion.sampler("euler", eta=2)
    with pytest.raises(ValueError, match="solver_type = 'x' is not one of 'midpoint', 'heun'"):
        k_diffusion.sample_dpmpp_2m_sde(model, X, SIGMAS, solver_type="x")
    program = logsnr.solver("ddim").program(logsnr.EDM(), [10.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="order: a program has no options"):
        k_diffusion.sampler(program, order=3)
    with pytest.raises(TypeError, match="noise_sampler must be"):
        k_diffusion.sample_euler_ancestral(model, X, SIGMAS, noise_sampler=3)


def fake_comfy(monkeypatch: pytest.MonkeyPatch, samplers: Any) -> ModuleType:
    """The few modules of ComfyUI that are touched."""
    for name in ("comfy", "comfy.k_diffusion", "comfy.k_diffusion.sampling", "comfy.samplers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = sys.modules["comfy.samplers"]
    module.KSampler = type("KSampler", (), {"SAMPLERS": samplers})  # type: ignore[attr-defined]
    module.KSAMPLER = lambda function, options=None: (function, options)  # type: ignore[attr-defined]
    return sys.modules["comfy.k_diffusion.sampling"]


def test_registration(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(ImportError, match=r"comfy\.samplers cannot be imported"):
        k_diffusion.register_comfyui()
    known = ["euler"]
    sampling: Any = fake_comfy(monkeypatch, known)
    new = k_diffusion.register_comfyui()
    assert "logsnr_dpmpp_2m" in new
    assert known == ["euler", *new]
    assert k_diffusion.register_comfyui() == []
    assert torch.equal(sampling.sample_logsnr_euler(model, X, SIGMAS), k_diffusion.sample_euler(model, X, SIGMAS))

    ((function, options),) = comfyui.SamplerNode().build("euler_ancestral", '{"eta": 0.5}', "sigma")
    assert options == {"eta": 0.5}
    assert torch.isfinite(function(model, X, SIGMAS, {"seed": 1}, **options)).all()
    with pytest.raises(ValueError, match="options must be JSON"):
        comfyui.SamplerNode().build("euler", "eta=1", "sigma")
    with pytest.raises(ValueError, match="etaa"):
        comfyui.SamplerNode().build("euler_ancestral", '{"etaa": 1}', "sigma")
    path = tmp_path / "table.json"
    path.write_text(logsnr.solver("ddim").program(logsnr.EDM(), [10.0, 1.0, 0.0]).to_json())
    (function, _), sigmas = comfyui.TableNode().build(str(path))
    assert sigmas.tolist() == [10.0, 1.0, 0.0]
    assert torch.isfinite(function(model, X, sigmas)).all()
    fake_comfy(monkeypatch, None)
    with pytest.raises(RuntimeError, match="older than"):
        k_diffusion.register_comfyui()


def test_sigmas_of_grids() -> None:
    """k-diffusion's karras sigmas (Karras et al. 2022, eq. 5), to 0; a flow model's from 1."""

    class Patcher:
        def __init__(self, sampling: Any) -> None:
            self.sampling = sampling

        def get_model_object(self, name: str) -> Any:
            return self.sampling

    eps = type("EPS", (), {"sigma_min": 0.03, "sigma_max": 14.6})()
    (sigmas,) = comfyui.SigmasNode().build(Patcher(eps), "karras", 6, "{}", True)
    ramp = torch.linspace(0, 1, 6).double()
    wanted = (14.6 ** (1 / 7) + ramp * (0.03 ** (1 / 7) - 14.6 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigmas, torch.cat([wanted, torch.zeros(1)]).float(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="options must be JSON"):
        comfyui.SigmasNode().build(Patcher(eps), "karras", 6, "[7]", True)
    (sigmas,) = comfyui.SigmasNode().build(Patcher(Flow.model_sampling), "time", 4, '{"shift": 3.0}', False)
    assert sigmas[0] == 1
    assert len(sigmas) == 5
