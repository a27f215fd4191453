"""Whole pipelines of diffusers with LogSNRScheduler and with their own: the same images."""

import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
from diffusers import schedulers as D
from diffusers_loops import apart, dpm

from logsnr.integrations.diffusers import LogSNRScheduler
from logsnr.kernels.execute import standard_normals
from logsnr.kernels.normals import Noise
from logsnr.solvers.runs.normals import seeds_of

pytestmark = pytest.mark.usefixtures("without_root")

STORED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
          "timestep_spacing": "leading"}  # fmt: skip
SVD = {"prediction_type": "v_prediction", "sigma_max": 700.0, "sigma_min": 0.002, "timestep_type": "continuous",
       "use_karras_sigmas": True}  # fmt: skip
COSINE = {"solver_order": 2, "prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_schedule": "exponential"}
FLOWING = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}

EULER = D.EulerDiscreteScheduler(**STORED), {"solver": "euler", "frame": "ve"}
DPM = D.DPMSolverMultistepScheduler(**STORED), {"compat": True}
DDIM = D.DDIMScheduler(**STORED, clip_sample=False), {"solver": "ddim"}
FLOW = D.FlowMatchEulerDiscreteScheduler(shift=3.0), {"solver": "euler"}
DYNAMIC = D.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), {"solver": "euler"}
UNIPC = D.UniPCMultistepScheduler(**FLOWING), {"solver": "unipc-2", "compat": True}
VIDEO = D.EulerDiscreteScheduler(**STORED, **SVD), {"solver": "euler", "frame": "ve"}
EDM = D.EDMDPMSolverMultistepScheduler(**COSINE, sigma_max=500.0, sigma_min=0.3), {"compat": True}

EDITS = ("", "Img2Img", "Inpaint")
CASES: list[tuple[str, str | None, Any]] = [
    *(("stable_diffusion", edit, pair) for edit in EDITS for pair in (EULER, DPM, DDIM)),
    *(("stable_diffusion_xl", edit, pair) for edit in EDITS for pair in (EULER, DPM)),
    *(("stable_diffusion_3", edit, FLOW) for edit in EDITS),
    *(("flux", edit, pair) for edit in EDITS for pair in (FLOW, DYNAMIC)),
    *(("qwen_image", edit, DYNAMIC) for edit in EDITS),
    *(("wan", edit, pair) for edit in ("", "ImageToVideo") for pair in (FLOW, UNIPC)),
    *((name, None, pair) for name in ("pixart", "dit") for pair in (DPM, DDIM)),
    ("svd", None, VIDEO),
    ("stable_audio", None, EDM),
    ("dance_diffusion", None, DPM),  # whose pipeline tells times as floats, which DDIMScheduler cannot look up
]

QUICK = (("stable_diffusion", "", DPM), ("flux", "", DYNAMIC))


def naming(value: Any) -> str:
    return type(value[0]).__name__.removesuffix("Scheduler") if isinstance(value, tuple) else value or "plain"


def tiny(name: str, *variant: str | None) -> Any:
    pytest.importorskip("transformers")
    import tiny_pipelines

    return getattr(tiny_pipelines, name)(*(v for v in variant if v is not None))


def ours(theirs: Any, options: dict[str, Any]) -> LogSNRScheduler:
    return LogSNRScheduler.from_config(theirs.config, **options)


@pytest.mark.parametrize(
    ("name", "variant", "pair"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
    ids=naming,
)
def test_pipelines_make_the_same_images(name: str, variant: str | None, pair: Any) -> None:
    """With guidance; and in bf16, where networks round, about as near to those of fp32."""
    pipe, schedulers = tiny(name, variant), (pair[0], ours(*pair))
    for batch in (1, 4):
        theirs, found = (pipe.run(s, batch) for s in schedulers)
        assert apart(found, theirs) < 1e-5
    if name != "svd":  # whose convolutions take a minute in bf16
        off, least = (float((pipe.run(s, 4, torch.bfloat16) - theirs).square().mean()) for s in schedulers[::-1])
        assert off < 1.5 * least


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stable_diffusion", "flux"])
def test_two_threads_share_a_pipeline(name: str) -> None:
    """Theirs fails, or mixes the runs."""
    made = tiny(name)
    pipe = made.pipe(ours(*(FLOW if name == "flux" else DPM)))
    alone = {n: made.call(pipe, n=n) for n in (5, 8)}
    found: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: made.call(pipe, n=n)})) for n in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(apart(found[n], alone[n]) < 1e-6 for n in alone)


@pytest.mark.slow
def test_stable_audio_is_a_known_solver_with_other_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own scheduler is SDE-DPM-Solver++(2M), and draws from a Brownian tree; with our noise it is ours to 1e-5."""
    made, theirs = tiny("stable_audio"), D.CosineDPMSolverMultistepScheduler(**COSINE)
    mine = LogSNRScheduler.from_config(theirs.config, solver="sde-dpmpp-2m", compat=True)
    found = made.run(mine, 2)
    assert apart(found, made.run(theirs, 2)) > 1e-2
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    for generator in generators:  # which pipelines start with
        torch.randn((1, *found.shape[1:]), generator=generator)
    drawn = [int(torch.randint(1 << 62, (), generator=generator)) for generator in generators]
    seeds, keys = seeds_of(2, found.device, drawn, None), iter(mine._plan.program.noises)

    def normal(s: Any, t: Any) -> torch.Tensor:
        key = next(keys, None)  # ours adds none at the end, theirs adds 0 times it
        return found * 0 if key is None else standard_normals(Noise(*seeds, (key.address,)), 0, found)

    module = sys.modules[type(theirs).__module__]
    monkeypatch.setattr(module, "BrownianTreeNoiseSampler", lambda *given, **named: normal)
    assert apart(found, made.run(theirs, 2)) < 1e-5


def test_a_pipeline_without_transformers() -> None:
    try:
        from diffusers import DDPMPipeline, UNet2DModel
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"the models of diffusers cannot be imported here: {error}")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, **blocks)
    images = []
    for scheduler in (dpm(), LogSNRScheduler.from_config(dpm().config, compat=True)):
        pipe = DDPMPipeline(unet, scheduler)
        pipe.set_progress_bar_config(disable=True)
        images.append(pipe(2, torch.Generator().manual_seed(0), 6, output_type="np").images)
    assert np.abs(images[0] - images[1]).max() < 1e-5
