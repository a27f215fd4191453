"""Pipelines of diffusers with random networks of a few thousand numbers, which take embeddings in place of prompts.

Each function makes the class of a pipeline, its parts without a scheduler, and what it is called with for a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers as D
import torch

Maker = Callable[[int], dict[str, Any]]


class Tiny(NamedTuple):
    """kind: the class. parts: of it. given: keywords of a call for a batch. output: the type that is asked for."""

    kind: Any
    parts: dict[str, Any]
    given: Maker
    output: str | None = "latent"

    def run(self, scheduler: Any, batch: int = 1, dtype: torch.dtype = torch.float32, n: int = 4) -> torch.Tensor:
        """The latents, or what is in their place."""
        pipe = self.pipe(scheduler, dtype)
        return self.call(pipe, batch, dtype, n)

    def pipe(self, scheduler: Any, dtype: torch.dtype = torch.float32) -> Any:
        pipe = self.kind(**self.parts, scheduler=scheduler).to(dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def call(self, pipe: Any, batch: int = 1, dtype: torch.dtype = torch.float32, n: int = 4) -> torch.Tensor:
        given = {name: _cast(name, value, dtype) for name, value in self.given(batch).items()}
        output = {"output_type": self.output} if self.output else {}
        generator = [torch.Generator().manual_seed(k) for k in range(batch)]
        found = pipe(generator=generator, num_inference_steps=n, **output, **given)
        return torch.as_tensor(next(iter(found.values()))).float()


def _cast(name: str, value: Any, dtype: torch.dtype) -> Any:
    embeds = isinstance(value, torch.Tensor) and name.endswith("embeds")
    return value.to(dtype) if embeds else value


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1]))


def _made(kind: Any, **config: Any) -> Any:
    torch.manual_seed(0)
    return kind(**config).eval().requires_grad_(False)


def _vae(channels: int, **config: Any) -> Any:
    sizes = {"block_out_channels": (4,), "layers_per_block": 1, "norm_num_groups": 1}
    return _made(D.AutoencoderKL, latent_channels=channels, **sizes, **config)


def _prompts(batch: int, width: int, pooled: int = 0) -> dict[str, Any]:
    """Embeddings of a prompt and of a negative one."""
    found = {"prompt_embeds": _normal(batch, 5, width)}
    if pooled:
        found["pooled_prompt_embeds"] = _normal(batch, pooled)
    return found | {f"negative_{name}": -value for name, value in found.items()}


def _edited(variant: str, batch: int, size: int, *, sized: bool = True) -> dict[str, Any]:
    """The image and the mask of a variant, "", "Img2Img" or "Inpaint". sized: whether "Img2Img" takes a size."""
    found: dict[str, Any] = {"height": size, "width": size} if sized or variant != "Img2Img" else {}
    if variant:
        found |= {"image": _normal(batch, 3, size, size).sigmoid(), "strength": 0.75}
    if variant == "Inpaint":
        found["mask_image"] = torch.ones(batch, 1, size, size).tril()
    return found


ATTENTION = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
             "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}  # fmt: skip


def _unet(**config: Any) -> Any:
    sizes = {"block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2, "sample_size": 8}
    heads = {"attention_head_dim": 4, "cross_attention_dim": 8, "in_channels": 4, "out_channels": 4}
    return _made(D.UNet2DConditionModel, **{**sizes, **heads, **ATTENTION, **config})


def stable_diffusion(variant: str = "") -> Tiny:
    def given(batch: int) -> dict[str, Any]:
        return {**_prompts(batch, 8), **_edited(variant, batch, 8, sized=False), "guidance_scale": 5.0}

    extra = {"text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    parts = {"unet": _unet(), "vae": _vae(4), **extra, "requires_safety_checker": False}
    return Tiny(getattr(D, f"StableDiffusion{variant}Pipeline"), parts, given)


def stable_diffusion_xl(variant: str = "") -> Tiny:
    def given(batch: int) -> dict[str, Any]:
        return {**_prompts(batch, 8, 8), **_edited(variant, batch, 8, sized=False), "guidance_scale": 5.0}

    ids = 5 if variant else 6  # the refiner's aesthetic score is one number of what is otherwise two
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    unet = _unet(**added, projection_class_embeddings_input_dim=4 * ids + 8, transformer_layers_per_block=1)
    extra = {"text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None}
    parts = {"unet": unet, "vae": _vae(4), **extra, "requires_aesthetics_score": bool(variant)}
    if not variant:
        parts.pop("requires_aesthetics_score")
    return Tiny(getattr(D, f"StableDiffusionXL{variant}Pipeline"), parts, given)


def stable_diffusion_3(variant: str = "") -> Tiny:
    def given(batch: int) -> dict[str, Any]:
        return {**_prompts(batch, 32, 64), **_edited(variant, batch, 8), "guidance_scale": 5.0}

    sizes = {"sample_size": 8, "patch_size": 1, "in_channels": 16, "out_channels": 16, "num_layers": 1}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16}
    net = _made(D.SD3Transformer2DModel, **sizes, **heads, joint_attention_dim=32, pooled_projection_dim=64)
    extra = {f"{part}{k}": None for part in ("text_encoder", "tokenizer") for k in ("", "_2", "_3")}
    vae = _vae(16, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False)
    return Tiny(getattr(D, f"StableDiffusion3{variant}Pipeline"), {"transformer": net, "vae": vae, **extra}, given)


def flux(variant: str = "") -> Tiny:
    def given(batch: int) -> dict[str, Any]:
        return {**_prompts(batch, 32, 32), **_edited(variant, batch, 8), "true_cfg_scale": 3.0}

    sizes = {"patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16}
    heads = {"num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32}
    net = _made(D.FluxTransformer2DModel, **sizes, **heads, axes_dims_rope=[4, 4, 8])
    extra = {f"{part}{k}": None for part in ("text_encoder", "tokenizer") for k in ("", "_2")}
    vae = _vae(1, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False)
    return Tiny(getattr(D, f"Flux{variant}Pipeline"), {"transformer": net, "vae": vae, **extra}, given)


def qwen_image(variant: str = "") -> Tiny:
    def given(batch: int) -> dict[str, Any]:
        prompt = _prompts(batch, 16)
        masks = {f"{name}_mask": torch.ones(batch, 5, dtype=torch.int64) for name in prompt}
        return {**prompt, **masks, **_edited(variant, batch, 16), "true_cfg_scale": 3.0}

    sizes = {"patch_size": 2, "in_channels": 16, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16}
    heads = {"num_attention_heads": 2, "joint_attention_dim": 16, "axes_dims_rope": (8, 4, 4)}
    net = _made(D.QwenImageTransformer2DModel, **sizes, **heads)
    size = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 4], "num_res_blocks": 1, "temperal_downsample": [False, True]}
    vae = _made(D.AutoencoderKLQwenImage, **size, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    parts = {"transformer": net, "vae": vae, "text_encoder": None, "tokenizer": None}
    return Tiny(getattr(D, f"QwenImage{variant}Pipeline"), parts, given)


def wan(variant: str = "") -> Tiny:
    """variant: "" or "ImageToVideo"."""

    def given(batch: int) -> dict[str, Any]:
        size = {"height": 16, "width": 16, "num_frames": 5, "guidance_scale": 4.0}
        return {**_prompts(batch, 32), **size, **({"image": _normal(1, 3, 16, 16).sigmoid()} if variant else {})}

    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 36 if variant else 16}
    net = _made(
        D.WanTransformer3DModel, **sizes, out_channels=16, text_dim=32, freq_dim=16, ffn_dim=16, num_layers=1,
        rope_max_seq_len=32,
    )  # fmt: skip
    vae = _made(D.AutoencoderKLWan, base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                temperal_downsample=[False, True, True])  # fmt: skip
    parts = {"transformer": net, "vae": vae, "text_encoder": None, "tokenizer": None}
    return Tiny(getattr(D, f"Wan{variant}Pipeline"), parts, given)


def pixart() -> Tiny:
    """PixArt-Sigma, whose network learns a variance."""

    def given(batch: int) -> dict[str, Any]:
        names = ("prompt_attention_mask", "negative_prompt_attention_mask")
        masks = {name: torch.ones(batch, 5, dtype=torch.int64) for name in names}
        return {
            **_prompts(batch, 16),
            **masks,
            "negative_prompt": None,
            "use_resolution_binning": False,
            "guidance_scale": 4.0,
        }

    sizes = {"sample_size": 8, "num_layers": 1, "patch_size": 2, "attention_head_dim": 8, "num_attention_heads": 2}
    net = _made(D.PixArtTransformer2DModel, **sizes, in_channels=4, out_channels=8, caption_channels=16,
                cross_attention_dim=16, norm_type="ada_norm_single", num_embeds_ada_norm=1000)  # fmt: skip
    return Tiny(
        D.PixArtSigmaPipeline,
        {"transformer": net, "vae": _vae(4), "text_encoder": None, "tokenizer": None},
        given,
    )


def dit() -> Tiny:
    """Images by labels."""

    def given(batch: int) -> dict[str, Any]:
        return {"class_labels": list(range(batch)), "guidance_scale": 3.0}

    sizes = {"sample_size": 8, "num_layers": 1, "patch_size": 2, "attention_head_dim": 8, "num_attention_heads": 2}
    net = _made(D.DiTTransformer2DModel, **sizes, in_channels=4, out_channels=8, num_embeds_ada_norm=1000)
    return Tiny(D.DiTPipeline, {"transformer": net, "vae": _vae(4)}, given, "np")


def svd() -> Tiny:
    """Stable Video Diffusion, from an image."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    def given(batch: int) -> dict[str, Any]:
        size = {"height": 16, "width": 16, "num_frames": 2, "decode_chunk_size": 1}
        return {**size, "image": _normal(batch, 3, 16, 16).sigmoid(), "min_guidance_scale": 1.5}

    blocks = {"down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
              "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal")}  # fmt: skip
    sizes = {"block_out_channels": (32, 32), "layers_per_block": 1, "sample_size": 8, "in_channels": 8}
    added = {"projection_class_embeddings_input_dim": 24, "addition_time_embed_dim": 8}
    unet = _made(D.UNetSpatioTemporalConditionModel, **blocks, **sizes, **added, out_channels=4,
                 cross_attention_dim=8, num_attention_heads=2)  # fmt: skip
    vae = _made(D.AutoencoderKLTemporalDecoder, block_out_channels=(32,), latent_channels=4, layers_per_block=1,
                down_block_types=("DownEncoderBlock2D",))  # fmt: skip
    vision = CLIPVisionConfig(hidden_size=8, projection_dim=8, num_hidden_layers=1, num_attention_heads=2,
                              image_size=16, intermediate_size=8, patch_size=4)  # fmt: skip
    torch.manual_seed(0)
    encoder = CLIPVisionModelWithProjection(vision).eval()
    extra = {"image_encoder": encoder, "feature_extractor": CLIPImageProcessor(crop_size=16, size=16)}
    return Tiny(D.StableVideoDiffusionPipeline, {"unet": unet, "vae": vae, **extra}, given)


def stable_audio() -> Tiny:
    """Sound in one dimension."""

    def given(batch: int) -> dict[str, Any]:
        return {**_prompts(batch, 4), "audio_end_in_s": 1.0, "guidance_scale": 4.0}

    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    net = _made(
        D.StableAudioDiTModel, sample_size=4, in_channels=3, out_channels=3, num_layers=1, attention_head_dim=4,
        num_attention_heads=2, num_key_value_attention_heads=2, cross_attention_dim=4, time_proj_dim=8,
        global_states_input_dim=8, cross_attention_input_dim=4,
    )  # fmt: skip
    sizes = {"encoder_hidden_size": 6, "decoder_channels": 3, "decoder_input_channels": 3, "audio_channels": 2}
    vae = _made(D.AutoencoderOobleck, **sizes, downsampling_ratios=[1, 2], channel_multiples=[2, 4], sampling_rate=4)
    project = _made(StableAudioProjectionModel, text_encoder_dim=4, conditioning_dim=4, min_value=0, max_value=32)
    parts = {"transformer": net, "vae": vae, "projection_model": project, "text_encoder": None, "tokenizer": None}
    return Tiny(D.StableAudioPipeline, parts, given)


def dance_diffusion() -> Tiny:
    """Sound in one dimension, without a condition."""
    blocks = {"down_block_types": ("DownBlock1DNoSkip", "AttnDownBlock1D"),
              "up_block_types": ("AttnUpBlock1D", "UpBlock1DNoSkip"), "mid_block_type": "UNetMidBlock1D"}  # fmt: skip
    net = _made(D.UNet1DModel, **blocks, block_out_channels=(32, 32), extra_in_channels=64, sample_size=64,
                sample_rate=16, in_channels=2, out_channels=2, use_timestep_embedding=False)  # fmt: skip
    return Tiny(D.DanceDiffusionPipeline, {"unet": net}, lambda batch: {"batch_size": batch}, None)
