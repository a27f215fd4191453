"""Every explicit form, with an exact network of its convention: the clean data it means, and where samples go."""

import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import conventions as C
import numpy as np
import pytest
import torch

import logsnr
from logsnr import integrations as I
from logsnr.integrations.models.selfcheck import look

KEPT = list(range(0, 1000, 4))
RESPACED = 1 - C.LINEAR[KEPT] / np.append(1.0, C.LINEAR[KEPT][:-1])
FORMS: dict[str, logsnr.Denoiser] = {
    "edm": I.edm(C.edm_d),
    "edm_raw": I.edm_raw(C.raw(0.5), 0.5),
    "edm_raw, v": I.edm_raw(C.raw(1.0, sign=-1), 1.0, sign=-1, sigma_max=700.0),
    "trigflow": I.trigflow(C.trig(0.5), 0.5),
    "flow 0": I.flow(C.velocity(0), data_at=0),
    "flow 1": I.flow(C.velocity(1), data_at=1),
    "flow 0, 1000 t": I.flow(C.velocity(0, 1000), data_at=0, time="1000t"),
    "flow 1, told the noise": I.flow(C.velocity(1, told_noise=True), data_at=1, time=lambda t: t),
    "score_sde vp": I.score_sde(C.song("vp")),
    "score_sde subvp": I.score_sde(C.song("subvp"), "subvp"),
    "score_sde ve": I.score_sde(C.song("ve"), "ve"),
    "guided_diffusion": I.guided_diffusion(C.table(C.LINEAR, twice=True)),
    "guided_diffusion, x0": I.guided_diffusion(C.table(C.LINEAR, "x0"), prediction="x0"),
    "guided_diffusion, respaced": I.guided_diffusion(C.table(C.LINEAR), RESPACED, timestep_map=KEPT),
    "k_diffusion": I.from_k_diffusion(C.Holder(C.edm_d, sigma_min=torch.tensor(0.03), sigma_max=torch.tensor(14.6))),
    "azula": I.azula(C.azula_like()),
    "lucidrains": I.lucidrains(
        SimpleNamespace(objective="pred_v", alphas_cumprod=torch.tensor(C.LINEAR), model=C.table(C.LINEAR, "v"))
    ),
    "lucidrains, elucidated": I.lucidrains(
        SimpleNamespace(net=C.raw(0.5), sigma_data=0.5, sigma_min=0.002, sigma_max=80)
    ),
}


def nodes(den: logsnr.Denoiser, n: int) -> np.ndarray:
    """A grid; of tables at whole entries."""
    grid = logsnr.grid(den.schedule, n)
    if not isinstance(den.schedule, logsnr.Discrete):
        return grid
    whole = np.unique(np.round(grid[:-1]))[::-1]
    return np.append(whole, -1.0)


@pytest.mark.parametrize("name", FORMS)
def test_form_means_the_exact_data(name: str) -> None:
    """The x0 of a form is that of the data, at every node."""
    den = FORMS[name]
    sch = den.schedule
    for t in nodes(den, 6)[1:-1]:
        x = sch.alpha(t) * C.MEAN + sch.sigma(t) * logsnr.randn((4, 2, 8), seed=1, dtype=torch.float64)
        exact = C.DATA.posterior(x, sch.alpha(t), sch.sigma(t))[0]
        assert (den.x0(x, t) - exact).abs().max() < 1e-5


@pytest.mark.parametrize("name", FORMS)
def test_samples_of_a_form_go_where_the_exact_path_goes(name: str) -> None:
    """From noise to data, against the closed form of the flow."""
    den = FORMS[name]
    sch, grid = den.schedule, nodes(den, 60)
    x = logsnr.start(sch, (8, 2, 8), seed=0, dtype=torch.float64)
    start = grid[0] if sch.alpha(grid[0]) > 0 else sch.t_start
    exact = C.DATA.flow(x, sch, float(start), float(grid[-1]))
    assert (logsnr.sample(den, x, solver="dpmpp-3m", grid=grid) - exact).abs().max() < 0.02


def test_conditions_and_guidance_are_handed_on() -> None:
    """Keywords reach the network by sample, and guidance asks it twice."""
    seen: list[Any] = []

    def net(x: torch.Tensor, sigma: torch.Tensor, labels: Any = None) -> torch.Tensor:
        seen.append(labels)
        return x / (1 + column(sigma, x) ** 2) + column(labels, x)

    def column(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return values.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)

    labels = torch.tensor([1.0, 2.0])
    den = I.edm(net, conditions={"labels": labels}, guidance=logsnr.Guidance(2.0, uncond={"labels": torch.zeros(2)}))
    found = logsnr.solve(den, logsnr.start(den.schedule, (2, 3), seed=0), steps=2)
    assert found.nfe == 4
    assert seen[0].tolist() == [0.0, 0.0, 1.0, 2.0]


def test_half_networks_are_preconditioned_in_single_precision() -> None:
    """F of bfloat16 sees bfloat16, while D is made in float32."""
    seen: list[torch.dtype] = []

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            seen.extend((x.dtype, t.dtype))
            return x * self.w

    den = I.edm_raw(Half())
    x = torch.full((1, 2), 1 / 3)
    assert torch.allclose(den.x0(x, 0.002), x, rtol=1e-4)
    assert seen == [torch.bfloat16, torch.float32]


def test_denoisers_of_forms_can_be_pickled() -> None:
    for name in ("edm", "score_sde subvp"):
        den = FORMS[name]
        if name == "edm":
            assert pickle.loads(pickle.dumps(den)).schedule == den.schedule
        assert pickle.loads(pickle.dumps(den.time)) == den.time
    sch = FORMS["trigflow"].schedule
    assert pickle.loads(pickle.dumps(sch)) == sch


SHAPE = (8, 2, 8)
WRONG = {
    "v taken for eps": lambda: I.guided_diffusion(C.table(C.LINEAR, "v"), time="index", shape=SHAPE),
    "eps taken for x0": lambda: I.guided_diffusion(C.table(C.LINEAR), prediction="x0", time="index", shape=SHAPE),
    "the other direction": lambda: I.flow(C.velocity(1), data_at=0, shape=SHAPE),
    "the other direction, 0": lambda: I.flow(C.velocity(0), data_at=1, shape=SHAPE),
    "score taken for eps": lambda: I.score_sde(C.song("ve"), shape=SHAPE),
    "time in thousands": lambda: I.flow(C.velocity(0, 1000), data_at=0, shape=SHAPE),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_form_notices_on_noise_what_is_wrong(wrong: str) -> None:
    with pytest.warns(UserWarning, match="not an estimate of clean data"):
        WRONG[wrong]()


@pytest.mark.parametrize("name", [n for n, den in FORMS.items() if not isinstance(den.schedule, logsnr.Discrete)])
def test_right_forms_do_not_warn(name: str) -> None:
    """Those of tables are left out: their networks here know whole entries alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(FORMS[name], SHAPE)


def test_the_warning_names_the_head() -> None:
    with pytest.warns(UserWarning, match="looks like prediction='v'"):
        I.guided_diffusion(C.table(C.LINEAR, "v"), time="index", shape=SHAPE)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="edm: the model must be a callable"):
        I.edm(3)
    with pytest.raises(ValueError, match="sigma_data = 0"):
        I.edm_raw(C.raw(0.5), 0.0)
    with pytest.raises(ValueError, match="data_at = 2 must be 0 or 1"):
        I.flow(C.velocity(0), data_at=2)
    with pytest.raises(ValueError, match="kind = 'vpp' is not one; did you mean 'vp'"):
        I.score_sde(C.song("vp"), "vpp")
    with pytest.raises(ValueError, match="timestep_map has 2 entries, but betas 1000"):
        I.guided_diffusion(C.table(C.LINEAR), timestep_map=[0, 1])
    with pytest.raises(ValueError, match="'linear', 'cosine' or numbers"):
        I.guided_diffusion(C.table(C.LINEAR), "quadratic")
    with pytest.raises(TypeError, match="has no schedule"):
        I.azula(C.edm_d)
    with pytest.raises(TypeError, match="has no alphas_cumprod with an objective"):
        I.lucidrains(C.edm_d)
    with pytest.raises(ValueError, match="shape"):
        I.edm(C.edm_d, shape=(0, 3))
    with pytest.raises(ValueError, match=r"conditions\['y'\] has 3 rows for a batch of 8"):
        I.edm(C.edm_d, shape=SHAPE, conditions={"y": torch.zeros(3)})
    with pytest.warns(UserWarning, match="self-conditioning"):
        I.lucidrains(
            SimpleNamespace(
                objective="pred_noise", alphas_cumprod=torch.tensor(C.LINEAR), model=C.edm_d, self_condition=True
            )
        )
