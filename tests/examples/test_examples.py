"""Every example of a family runs, with a small random model of it, and is short."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPE = (2, 3, 8, 8)
BARS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
PROMPT = torch.ones(2, 5, 4)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Net(torch.nn.Module):
    """A convolution that hears the time and takes any conditions; ``form`` makes what the library's network returns."""

    def __init__(self, form: Any = lambda y: y, swapped: bool = False, **attributes: Any) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(3, 3, 3, 3, generator=generator) / 10)
        self.form, self.swapped = form, swapped
        self.__dict__.update(attributes)

    def forward(self, x: torch.Tensor, t: torch.Tensor, **conditions: Any) -> Any:
        x, t = (t, x) if self.swapped else (x, t)
        assert t.shape == (len(x),)
        y = torch.nn.functional.conv2d(x / x.std(), self.weight, padding=1)
        for value in conditions.values():
            y = y + value.reshape(len(x), -1).mean(1).reshape(-1, 1, 1, 1)
        return self.form(torch.tanh(y + torch.sin(t.float()).reshape(-1, 1, 1, 1)))


class Transformer(Net):
    """Flow transformers of diffusers take the time by name."""

    def forward(self, hidden_states: Any, encoder_hidden_states: Any = None, timestep: Any = None, **more: Any) -> Any:
        return super().forward(hidden_states, timestep, prompt=encoder_hidden_states, **more)


def named(y: torch.Tensor) -> Any:
    return SimpleNamespace(sample=y)


def line(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 1 - 0.999 * t, t + 0.001 * (1 - t)


EDM = Net(round_sigma=torch.as_tensor, sigma_data=0.5, sigma_min=0.0, sigma_max=float("inf"))
AZULA = type("KarrasDenoiser", (Net,), {"__module__": "azula.denoise"})
TABLE = SimpleNamespace(betas=torch.linspace(1e-4, 0.02, 1000), model_mean_type=SimpleNamespace(name="EPSILON"))
RUNS: dict[str, tuple[Any, ...]] = {
    "from_edm": (EDM, torch.eye(4)[:2], SHAPE),
    "from_flow": (Net(swapped=True), torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))),
    "from_score_sde": (Net(), "subvp", SHAPE),
    "from_guided_diffusion": (Net(lambda y: torch.cat([y, y], 1)), TABLE, torch.ones(2), SHAPE),
    "from_diffusers_unet": (Net(named), SD, PROMPT, 0 * PROMPT, SHAPE),
    "from_diffusers_flow": (
        Transformer(named),
        SimpleNamespace(config={"shift": 3.0}),
        {"encoder_hidden_states": PROMPT, "pooled_projections": torch.ones(2, 4)},
        SHAPE,
    ),
    "from_k_diffusion": (Net(inner_model=None, sigma_min=0.03, sigma_max=14.6), SHAPE),
    "from_azula": (AZULA(lambda y: SimpleNamespace(mean=y), schedule=line), SHAPE),
    "from_lucidrains": (Net(objective="pred_v", alphas_cumprod=BARS, model=Net()), SHAPE),
}


def test_every_family_has_a_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("from_*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_example(name: str) -> None:
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) < 40
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.no_grad():
        made = module.generate(*RUNS[name])
    assert made.shape == SHAPE
    assert made.isfinite().all()
