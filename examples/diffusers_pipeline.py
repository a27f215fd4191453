"""Any solver in a pipeline of diffusers, here with a small network of random weights.

pip install 'logsnr[diffusers]' && python examples/diffusers_pipeline.py
"""

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

import logsnr
from logsnr.integrations.diffusers import LogSNRScheduler, grid, schedule


def main() -> None:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, **blocks)
    pipe = DDPMPipeline(unet, DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)

    for solver in ("ddim", "dpmpp-2m", "sde-dpmpp-2m"):
        pipe.scheduler = LogSNRScheduler.from_config(pipe.scheduler.config, solver=solver)
        images = pipe(2, torch.Generator().manual_seed(0), num_inference_steps=8, output_type="np").images
        print(solver, images.shape)

    # The same run without the pipeline: the schedule and the grid are the scheduler's.
    pipe.scheduler.set_timesteps(8)
    den = logsnr.Denoiser(lambda x, t: unet(x, t).sample, schedule(pipe.scheduler), "eps")
    x = logsnr.sample(den, logsnr.randn((2, 3, 8, 8), seed=0), solver="dpmpp-2m", grid=grid(pipe.scheduler))
    print(tuple(x.shape))


if __name__ == "__main__":
    main()
