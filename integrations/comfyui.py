"""ComfyUI: all solvers in its lists, and nodes that choose a solver with its options, a fitted table, and a grid.

    import logsnr.integrations.comfyui as pack
    NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = pack.NODE_CLASS_MAPPINGS, pack.NODE_DISPLAY_NAME_MAPPINGS
    pack.register_comfyui()

in ``custom_nodes/logsnr/__init__.py`` is the whole node pack.
"""

import json
from pathlib import Path
from typing import Any

import torch

from ..solvers.grids.grids import grid as make_grid
from ..solvers.grids.grids import grid_names
from ..solvers.programs.program import Program
from ..solvers.schedules.straight import EDM, FlowMatching
from .k_diffusion import comfy_module, is_flow, register_comfyui, sample_function_names, sampler


def _options(text: str) -> dict[str, Any]:
    """A node's options; ValueError for what is no JSON of them."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f'options must be JSON such as {{"eta": 0.5}}, not {text!r:.60}')
    return found


class SamplerNode:
    """A SAMPLER of a solver by name, with its options as JSON: ``{"eta": 0.5}``."""

    CATEGORY, FUNCTION, RETURN_TYPES = "sampling/custom_sampling/samplers", "build", ("SAMPLER",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "solver": (sample_function_names(), {"default": "dpmpp_2m"}),
                "options": ("STRING", {"default": "{}"}),
                "space": (["sigma", "logsnr"],),
            }
        }

    def build(self, solver: str, options: str, space: str) -> tuple[Any]:
        found = _options(options)
        made = sampler(solver, space=space, **found)  # refuses options here, and not when it runs
        return (comfy_module("comfy.samplers").KSAMPLER(made, found),)


class TableNode:
    """A SAMPLER of a program in a JSON file, such as a fitted table; it runs on its own grid."""

    CATEGORY, FUNCTION, RETURN_TYPES = "sampling/custom_sampling/samplers", "build", ("SAMPLER", "SIGMAS")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"path": ("STRING", {"default": "table.json"})}}

    def build(self, path: str) -> tuple[Any, torch.Tensor]:
        program = Program.from_json(Path(path).read_text())
        made = comfy_module("comfy.samplers").KSAMPLER(sampler(program))
        return made, torch.tensor(program.grid, dtype=torch.float32)


class SigmasNode:
    """SIGMAS of a grid by name, from the model's largest sigma to its smallest, or to 0."""

    CATEGORY, FUNCTION, RETURN_TYPES = "sampling/custom_sampling/schedulers", "build", ("SIGMAS",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "grid": (grid_names(), {"default": "karras"}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10_000}),
                "options": ("STRING", {"default": "{}"}),
                "to_zero": ("BOOLEAN", {"default": True}),
            }
        }

    def build(self, model: Any, grid: str, steps: int, options: str, to_zero: bool) -> tuple[torch.Tensor]:
        sampling = model.get_model_object("model_sampling")
        low, high = float(sampling.sigma_min), float(sampling.sigma_max)
        flow = is_flow(type("Model", (), {"model_sampling": sampling}))
        sch: Any = FlowMatching() if flow else EDM(low, high)
        ends = {"t_start": min(high, 1.0), "t_end": low} if flow else {}
        times = make_grid(sch, steps - to_zero or 1, grid, **ends, **_options(options))
        sigmas = [*times.tolist(), 0.0] if to_zero else times.tolist()
        return (torch.tensor(sigmas, dtype=torch.float32),)


__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "register_comfyui"]

NODE_CLASS_MAPPINGS = {"LogSNRSampler": SamplerNode, "LogSNRTable": TableNode, "LogSNRSigmas": SigmasNode}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LogSNRSampler": "logsnr sampler", "LogSNRTable": "logsnr table", "LogSNRSigmas": "logsnr sigmas",
}  # fmt: skip
