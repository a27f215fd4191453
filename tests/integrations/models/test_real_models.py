"""`logsnr.wrap` of small random models of the libraries themselves, against their own samplers, where installed."""

from typing import Any

import numpy as np
import pytest
import torch

import logsnr

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_root")]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / a.abs().max()).item()


def unet() -> Any:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    models = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = models.UNet2DModel(8, 3, 3, block_out_channels=(32, 32), layers_per_block=1, **blocks)
    return net.eval().requires_grad_(False)


def theirs(net: Any, scheduler: Any, x: torch.Tensor, n: int = 10) -> torch.Tensor:
    """The pipelines' loop."""
    scheduler.set_timesteps(n)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    return x


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_unets_with_tables(kind: str) -> None:
    """The same as DDIM of diffusers, zero terminal SNR included."""
    net, x = unet(), logsnr.randn((2, 3, 8, 8), seed=0)
    table = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
    zero = kind != "epsilon"
    make = pytest.importorskip("diffusers").DDIMScheduler
    scheduler = make(**table, prediction_type=kind, clip_sample=False, rescale_betas_zero_snr=zero)
    other = theirs(net, scheduler, x)
    grid = np.append(scheduler.timesteps.double().numpy(), -1.0)
    assert distance(other, logsnr.sample(logsnr.wrap(net, scheduler), x, solver="ddim", grid=grid)) < 1e-5


def test_unets_of_edm_and_of_continuous_v() -> None:
    """EDM's preconditioning, and that of Stable Video Diffusion."""
    diffusers, net, x = pytest.importorskip("diffusers"), unet(), logsnr.randn((2, 3, 8, 8), seed=0)
    svd = {"prediction_type": "v_prediction", "timestep_type": "continuous", "use_karras_sigmas": True}
    ends = {"sigma_min": 0.002, "sigma_max": 700.0, "timestep_spacing": "leading"}
    for scheduler in (diffusers.EDMEulerScheduler(), diffusers.EulerDiscreteScheduler(**svd, **ends)):
        other, den = theirs(net, scheduler, x), logsnr.wrap(net, scheduler)
        grid = scheduler.sigmas.double().numpy().clip(max=den.schedule.t_start)
        start = x * float(scheduler.init_noise_sigma)
        assert distance(other, logsnr.sample(den, start, solver="ddim", grid=grid)) < 1e-5


def test_flow_transformers() -> None:
    """Stable Diffusion 3, whose time is a keyword that does not come second."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 4, "caption_projection_dim": 32, "joint_attention_dim": 32, "out_channels": 4}
    small = {"sample_size": 8, "patch_size": 1, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8}
    net = diffusers.SD3Transformer2DModel(**small, **sizes, pooled_projection_dim=64).eval().requires_grad_(False)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    prompt = {"encoder_hidden_states": torch.randn(2, 5, 32), "pooled_projections": torch.randn(2, 64)}
    x = start = logsnr.randn((2, 4, 8, 8), seed=0)
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, timestep=t.expand(2), **prompt).sample, t, x).prev_sample
    den = logsnr.wrap(net, scheduler, conditions=prompt)
    assert distance(x, logsnr.sample(den, start, solver="euler", grid=scheduler.sigmas.double().numpy())) < 1e-5


def test_denoisers_of_azula() -> None:
    pytest.importorskip("azula")
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * torch.cos(t).reshape(-1, 1)

    torch.manual_seed(0)
    model, x = KarrasDenoiser(Backbone(), VPSchedule()), logsnr.randn((5, 4), seed=0)
    with torch.no_grad():
        other = DDIMSampler(model, steps=10, silent=True)(x)
    assert distance(other, logsnr.sample(logsnr.wrap(model), x, solver="ddim", grid=np.linspace(1, 0, 11))) < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
def test_conditions_follow_parallel_runs(batch: int) -> None:
    """Windows of calls have other rows than the batch, and the prompts with them."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    sizes = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1, "cross_attention_dim": 8}
    net = diffusers.UNet2DConditionModel(8, **blocks, **sizes, attention_head_dim=4).eval().requires_grad_(False)
    prompt = {"encoder_hidden_states": torch.randn(batch, 5, 8)}
    den = logsnr.wrap(net, diffusers.DDIMScheduler(), conditions=prompt)
    x = logsnr.randn((batch, 4, 8, 8), seed=0)
    settings = {"solver": "dpmpp-2m", "steps": 12}
    alone = logsnr.sample(den, x, **settings)
    assert distance(alone, logsnr.sample(den, x, **settings, parallel=logsnr.Picard())) < 1e-5
    guidance = logsnr.Guidance(3.0, uncond={"encoder_hidden_states": torch.zeros(batch, 5, 8)})
    den = logsnr.wrap(net, diffusers.DDIMScheduler(), conditions=prompt, guidance=guidance)
    alone = logsnr.sample(den, x, **settings)
    assert distance(alone, logsnr.sample(den, x, **settings, parallel=logsnr.Picard(tol=1e-6))) < 1e-5
