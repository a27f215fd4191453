"""`logsnr.wrap`: models and configs of other libraries are recognised, with exact networks of each convention."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import conventions as C
import numpy as np
import pytest
import torch

import logsnr
from logsnr.integrations.models.pretrained import config_of
from logsnr.integrations.schedulers.configs import is_flow

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
FLOW = {"num_train_timesteps": 1000, "shift": 3.0}
SVD = {**SD, "prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0}
ED = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, "num_train_timesteps": 1000}


def rescaled(bars: np.ndarray) -> np.ndarray:
    """Zero terminal SNR, Lin et al., arXiv:2305.08891."""
    root = np.sqrt(bars)
    return ((root - root[-1]) / (root[0] - root[-1]) * root[0]) ** 2


def scheduler(name: str, **config: Any) -> Any:
    return type(name, (), {"config": config})()


def lucid() -> Any:
    diffusion = SimpleNamespace(objective="pred_noise", alphas_cumprod=torch.tensor(C.LINEAR), model=C.table(C.LINEAR))
    return C.Holder(lambda x, t: x, **vars(diffusion))


def spaced(kept: list[int]) -> Any:
    """guided-diffusion's SpacedDiffusion."""
    bars = C.LINEAR[kept]
    return SimpleNamespace(
        betas=1 - bars / np.append(1.0, bars[:-1]),
        model_mean_type=SimpleNamespace(name="EPSILON"),
        timestep_map=kept,
        original_num_steps=1000,
        rescale_timesteps=True,
    )


def of_library(name: str, call: Any, library: str, **attributes: Any) -> Any:
    """A callable whose class is of a library."""
    kind = type(name, (C.Holder,), {"__module__": f"{library}.models"})
    return kind(call, **attributes)


EDM = {"sigma_min": 0.0, "sigma_max": float("inf")}
AZULA = C.azula_like()
WRAPPED: dict[str, tuple[Any, Any]] = {
    "EDMPrecond": (
        of_library("EDMPrecond", C.edm_d, "training", round_sigma=torch.as_tensor, sigma_data=0.5, **EDM),
        None,
    ),
    "Precond of EDM2": (of_library("Precond", C.edm_d, "training", sigma_data=0.5), None),
    "k-diffusion": (C.Holder(C.edm_d, inner_model=None, sigma_min=0.03, sigma_max=14.6), None),
    "azula": (of_library("KarrasDenoiser", AZULA.call, "azula", schedule=AZULA.schedule), None),
    "lucidrains": (lucid(), None),
    "flow_matching": (of_library("ModelWrapper", C.velocity(1), "flow_matching"), None),
    "guided-diffusion": (C.table(C.LINEAR, twice=True), spaced(list(range(1, 1000, 2)))),
    "UNet, eps": (C.diffusers_like("UNet2DConditionModel", C.table(C.ROOTS)), SD),
    "UNet, v, zero terminal SNR": (
        C.diffusers_like("UNet2DModel", C.table(rescaled(C.ROOTS), "v")),
        scheduler("DDIMScheduler", **SD, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    ),
    "UNet, x0, trained betas": (
        C.diffusers_like("UNet2DModel", C.table(C.LINEAR, "x0")),
        {"trained_betas": np.linspace(1e-4, 0.02, 1000).tolist(), "prediction_type": "sample"},
    ),
    "a function": (C.table(C.LINEAR), {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}),
    "SD3": (C.diffusers_like("SD3Transformer2DModel", C.velocity(0, 1000)), FLOW),
    "Flux": (C.diffusers_like("FluxTransformer2DModel", C.velocity(0)), scheduler("FlowMatchEuler", **FLOW)),
    "Sana": (
        C.diffusers_like("SanaTransformer2DModel", C.velocity(0, 1.0), config=SimpleNamespace(timestep_scale=0.001)),
        {**SD, "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
    "Lumina 2": (C.diffusers_like("Lumina2Transformer2DModel", C.velocity(1)), FLOW),
    "Mochi": (C.diffusers_like("MochiTransformer3DModel", C.velocity(1, 1000)), {**FLOW, "invert_sigmas": True}),
    "HiDream": (C.diffusers_like("HiDreamImageTransformer2DModel", C.velocity(1, 1000, told_noise=True)), FLOW),
    "SVD": (C.diffusers_like("UNetSpatioTemporalConditionModel", C.raw(1.0, sign=-1)), SVD),
    "EDMEuler": (C.diffusers_like("UNet2DModel", C.raw(0.5)), ED),
    "EDMEuler, v": (C.diffusers_like("UNet2DModel", C.raw(0.5, sign=-1)), {**ED, "prediction_type": "v_prediction"}),
    "StableAudio": (
        C.diffusers_like("StableAudioDiTModel", C.raw(1.0, "angle", -1)),
        {**ED, "sigma_data": 1.0, "prediction_type": "v_prediction"},
    ),
    "NCSN++": (
        C.diffusers_like("UNet2DModel", C.song("ve")),
        {"snr": 0.15, "sampling_eps": 1e-5, "sigma_min": 0.01, "sigma_max": 1348.0},
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_models_mean_the_exact_data(name: str) -> None:
    den = logsnr.wrap(*WRAPPED[name])
    sch = den.schedule
    grid = logsnr.grid(sch, 7)[1:-1]
    for t in np.round(grid) if isinstance(sch, logsnr.Discrete) else grid:
        x = sch.alpha(t) * C.MEAN + sch.sigma(t) * logsnr.randn((4, 2, 8), seed=1, dtype=torch.float64)
        exact = C.DATA.posterior(x, sch.alpha(t), sch.sigma(t))[0]
        assert (den.x0(x, t) - exact).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["UNet, v, zero terminal SNR", "SD3", "Mochi", "SVD", "EDMPrecond", "k-diffusion"])
def test_samples_of_wrapped_models(name: str) -> None:
    """From pure noise along the exact path, alpha = 0 included."""
    den = logsnr.wrap(*WRAPPED[name])
    sch = den.schedule
    grid = logsnr.grid(sch, 60)
    if isinstance(sch, logsnr.Discrete):
        grid = np.append(np.unique(np.round(grid[:-1]))[::-1], -1.0)
    x = logsnr.start(sch, (8, 2, 8), seed=0, dtype=torch.float64)
    exact = C.DATA.flow(x, sch, sch.t_start, float(grid[-1]))
    assert (logsnr.sample(den, x, solver="dpmpp-3m", grid=grid) - exact).abs().max() < 0.02


def test_tables_are_those_of_the_betas_in_float64() -> None:
    """Also where the scheduler has them in float32; zero terminal SNR is exactly 0."""
    table = logsnr.wrap(*WRAPPED["UNet, eps"]).schedule.alphas_cumprod
    assert np.array_equal(table, C.ROOTS)
    zero = logsnr.wrap(*WRAPPED["UNet, v, zero terminal SNR"]).schedule
    assert zero.alphas_cumprod[-1] == 0
    assert zero.alpha(zero.t_start) == 0


def test_models_of_comfyui_that_are_flows() -> None:
    class CONST:
        pass

    class Sampling(CONST):
        pass

    inner = SimpleNamespace(model_sampling=Sampling())
    model = C.Holder(lambda x, s: C.pair(x, 1 - s, s)[0], inner_model=SimpleNamespace(inner_model=inner))
    den = logsnr.wrap(model)
    assert den.schedule == logsnr.FlowMatching()
    x = logsnr.randn((4, 2, 8), seed=0, dtype=torch.float64)
    assert torch.allclose(den.x0(x, 0.7), C.DATA.posterior(x, 0.3, 0.7)[0], atol=1e-6)


def test_check_agrees_with_what_wrap_finds() -> None:
    """The convention that wrap takes fits best, of every model that is no table of whole indices."""
    x0 = C.DATA.sample(16, generator=torch.Generator().manual_seed(0))
    for name in ("EDMPrecond", "azula", "flow_matching", "SD3", "Flux", "Lumina 2", "HiDream", "SVD", "EDMEuler"):
        found = logsnr.check(logsnr.wrap(*WRAPPED[name]), x0)
        assert found.ok, (name, found)


def test_compiled_networks_are_seen_through() -> None:
    """Class, name of the time and scale of it are those of the network inside."""
    net, config = WRAPPED["Lumina 2"]
    compiled = C.Holder(net, _orig_mod=net)
    den = logsnr.wrap(compiled, config)
    x = logsnr.randn((4, 2, 8), seed=0, dtype=torch.float64)
    assert torch.equal(den.x0(x, 0.7), logsnr.wrap(net, config).x0(x, 0.7))


def test_networks_with_keywords_bound_are_seen_through() -> None:
    """As Flux, whose tensors of places are of all samples: it is told t, and not 1000 t; in its own dtype."""

    class FluxTransformer2DModel(torch.nn.Linear):
        def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            told.append((hidden_states.dtype, *timestep.tolist(), len(ids)))
            return super().forward(hidden_states)

    told: list[Any] = []
    net = FluxTransformer2DModel(4, 4, dtype=torch.bfloat16)
    logsnr.wrap(partial(net, ids=torch.zeros(7)), FLOW).x0(torch.ones(2, 4), 0.5)
    assert told == [(torch.bfloat16, 0.5, 0.5, 7)]
    with pytest.raises(ValueError, match=r"samples share is bound to the model: functools.partial\(model, ids="):
        logsnr.sample(logsnr.wrap(net, FLOW, conditions={"ids": torch.zeros(7)}), torch.ones(2, 4), nfe=4)


def test_configs() -> None:
    assert config_of(scheduler("DDIMScheduler", a=1, b=None)) == {"_class_name": "DDIMScheduler", "a": 1}
    assert is_flow({"_class_name": "FlowMatchHeunDiscreteScheduler"})
    assert is_flow(FLOW)
    assert not is_flow(SD)


def test_options_are_handed_on() -> None:
    net, config = WRAPPED["UNet, eps"]
    den = logsnr.wrap(net, config, conditions={"labels": torch.zeros(2)}, dtype=torch.float64, time="index")
    assert den.time == "index"
    assert list(den.conditions) == ["labels"]
    with pytest.warns(UserWarning, match="not an estimate of clean data"):
        logsnr.wrap(net, {**config, "prediction_type": "sample"}, time="index", shape=(8, 2, 8))


BAD: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "a plain function": ((C.edm_d,), ValueError, "nothing says what function returns.*config.*edm, edm_raw, flow"),
    "no callable": ((3,), TypeError, r"must be a callable model\(x, t\), not int"),
    "a diffusers model alone": (
        (of_library("UNet2DModel", C.edm_d, "diffusers"),),
        ValueError,
        r"needs its scheduler: wrap\(model, pipe.scheduler\)",
    ),
    "a pipeline": (
        (SimpleNamespace(scheduler=1, transformer=2),),
        TypeError,
        r"wrap\(pipe.transformer, pipe.scheduler\)",
    ),
    "a schedule": ((C.edm_d, logsnr.EDM()), TypeError, "is a schedule: logsnr.Denoiser"),
    "a denoiser": ((C.DATA.denoiser(logsnr.EDM()),), TypeError, "is a Denoiser already"),
    "a name": ((C.edm_d, "edm"), TypeError, "config must be a scheduler, its config or a dictionary, not str"),
    "an unknown config": ((C.edm_d, {"steps": 3}), ValueError, "config with steps has neither beta_start"),
    "a consistency model": ((C.edm_d, {**ED, "clip_denoised": True}), ValueError, "has neither"),
    "an unknown head": (
        (C.edm_d, {**SD, "prediction_type": "w"}),
        ValueError,
        "prediction_type = 'w' is not one of eps",
    ),
    "flow head and betas": (
        (C.edm_d, {**SVD, "prediction_type": "epsilon"}),
        ValueError,
        "timestep_type = 'continuous'",
    ),
    "a flow's head of a table": (
        (C.edm_d, {**SD, "prediction_type": "flow_prediction"}),
        ValueError,
        "'flow_prediction' and betas disagree",
    ),
    "v of a flow": ((C.edm_d, {**FLOW, "prediction_type": "v_prediction"}), ValueError, "and a flow config disagree"),
    "unknown betas": ((C.edm_d, {**SD, "beta_schedule": "sigmoid"}), ValueError, "beta_schedule = 'sigmoid'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    given, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        logsnr.wrap(*given)
