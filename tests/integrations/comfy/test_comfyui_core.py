"""ComfyUI's own sampling core with a network of a few numbers: the same images by its samplers and by ours."""

from typing import Any

import pytest
import torch

options = pytest.importorskip("comfy.cli_args")
options.args.cpu = True  # read when what follows is imported
samplers = pytest.importorskip("comfy.samplers")
from comfy import latent_formats, model_base, model_patcher, sample, supported_models_base  # noqa: E402

import logsnr  # noqa: E402
from logsnr import analysis  # noqa: E402
from logsnr.integrations import k_diffusion  # noqa: E402

pytestmark = pytest.mark.slow

KINDS = ("EPS", "V_PREDICTION", "EDM", "FLOW")
ODE = ("euler", "heun", "dpm_2", "dpmpp_2m", "lms", "ipndm", "ipndm_v", "deis", "heunpp2", "uni_pc", "uni_pc_bh2",
       "dpm_fast", "dpm_adaptive", "res_multistep", "gradient_estimation")  # fmt: skip
CFG_PP = ("euler_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp", "gradient_estimation_cfg_pp")
NOISY = (
    "euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "er_sde", "seeds_2", "seeds_3", "sa_solver",
    "sa_solver_pece", "dpm_2_ancestral", "dpmpp_2s_ancestral",
    "euler_ancestral_cfg_pp", "res_multistep_ancestral", "dpmpp_2s_ancestral_cfg_pp",
    "res_multistep_ancestral_cfg_pp", "dpmpp_2m_sde_heun", "ddpm", "lcm",
)  # fmt: skip


class Network(torch.nn.Module):
    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 3, padding=1)
        self.prompt = torch.nn.Linear(6, 8)

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, **others: Any) -> torch.Tensor:
        added = 2 * self.prompt(context.mean(1)) + 0.001 * t.reshape(-1, 1)
        return self.last(torch.tanh(self.first(x) + added[:, :, None, None])) + 0.3 * x


def model(kind: str) -> Any:
    config = supported_models_base.BASE.__new__(supported_models_base.BASE)
    fields = {"unet_config": {"disable_unet_model_creation": True}, "latent_format": latent_formats.SD15()}
    fields |= {"sampling_settings": {"shift": 3.0} if kind == "FLOW" else {}, "memory_usage_factor": 1.0}
    for name in ("unet_extra_config", "optimizations"):
        fields[name] = {}
    for name in ("manual_cast_dtype", "custom_operations", "scaled_fp8", "quant_config"):
        fields[name] = None
    vars(config).update(fields)
    cpu = torch.device("cpu")
    base = model_base.BaseModel(config, model_type=model_base.ModelType[kind], device=cpu)
    torch.manual_seed(0)
    base.diffusion_model = Network().eval().requires_grad_(False)
    return model_patcher.ModelPatcher(base, cpu, cpu)


def path(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Increments of one path over sigma, of standard deviation about 1."""
    at = torch.linspace(0, 9, 2 * 4 * 64).reshape(2, 4, 8, 8)
    ends = [torch.sin(3 * at + 4 * float(u) ** 0.5) for u in (s, t)]
    return (ends[0] - ends[1]) / abs(float(s) - float(t)) ** 0.5


@pytest.mark.parametrize("name", [*ODE, *CFG_PP, *NOISY])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_with_masks_and_guidance(kind: str, name: str) -> None:
    patcher = model(kind)
    positive, negative = ([[torch.randn(1, 5, 6), {}]] for _ in range(2))
    noise, latent, mask = torch.randn(2, 4, 8, 8), 0.5 * torch.randn(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
    mask[..., 4:] = 1
    sigmas = samplers.calculate_sigmas(patcher.model.model_sampling, "simple", 8)
    for levels, start, where in ((sigmas, 0 * latent, None), (sigmas, latent, mask), (sigmas[3:], latent, None)):
        ends, seen = [], []
        more: dict[str, Any] = {"noise_sampler": path} if name in NOISY else {}
        theirs = samplers.ksampler(name, more) if more else samplers.sampler_object(name)
        for function in (theirs, samplers.KSAMPLER(k_diffusion.sampler(name), more, {})):
            told: list[tuple[int, torch.Tensor]] = []
            watch = lambda i, x0, x, n, told=told: told.append((i, x0.clone()))  # noqa: E731
            given = {"noise_mask": where, "callback": watch, "disable_pbar": True, "seed": 3}
            ends.append(
                sample.sample_custom(patcher, noise, 5.0, function, levels.clone(), positive, negative, start, **given)
            )
            seen.append(told)
        if kind == "FLOW" and name.startswith("uni_pc"):
            ends[0] *= 1 - 1e-3  # it writes its last sigma, 0.001, into the caller's list, who divides by 1 - sigma
        # UniPC's 1 - alpha^2 loses digits in fp32 at the end; steps that are chosen by rounded errors are others
        rounding = 2e-4 if name.startswith(("uni_pc", "dpm_adaptive")) else 1e-5
        off = float((ends[0] - ends[1]).abs().max() / ends[0].abs().max())
        assert off < rounding
        if name in ("uni_pc", "uni_pc_bh2", "sa_solver_pece", "dpm_adaptive"):
            continue  # these tell of other states of a step
        for (i, x0), (j, other) in zip(*seen, strict=True):
            assert i == j
            assert (x0 - other).abs().max() < 1e-4 * x0.abs().max()


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2"])
def test_unipc_differs_by_a_lost_digit_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 theirs is ours; in fp32 it is, too, as soon as sigma / sqrt(1 + sigma^2) is not sqrt(1 - alpha^2)."""
    module = pytest.importorskip("comfy.extra_samplers.uni_pc")
    exact = analysis.two_gaussians().denoiser(logsnr.EDM(), "x0")
    sigmas = torch.cat([torch.from_numpy(logsnr.grid(logsnr.EDM(0.03, 14.6), 8, "karras")), torch.zeros(1)])
    x = 14.6 * logsnr.randn((16, 1), seed=0, dtype=torch.float64)

    def network(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return exact.x0(x.double(), sigma.double()).to(x.dtype)

    def theirs(dtype: torch.dtype) -> torch.Tensor:
        torch.set_default_dtype(dtype)  # of the small systems that it solves
        try:
            found: torch.Tensor = getattr(module, f"sample_{name.replace('uni_pc', 'unipc')}")(
                network, x.to(dtype), sigmas.to(dtype), {}, disable=True
            )
        finally:
            torch.set_default_dtype(torch.float32)
        return found.double()

    ours = k_diffusion.sampler(name)(network, x, sigmas)
    assert (theirs(torch.float64) - ours).abs().max() < 1e-11
    assert (k_diffusion.sampler(name)(network, x.float(), sigmas.float()) - ours).abs().max() < 2e-6
    assert (theirs(torch.float32) - ours).abs().max() > 2e-5
    monkeypatch.setattr(module.SigmaConvert, "marginal_std", lambda self, s: s / (1 + s * s).sqrt())
    monkeypatch.setattr(module.SigmaConvert, "marginal_lambda", lambda self, s: -s.log())
    assert (theirs(torch.float32) - ours).abs().max() < 2e-6
