"""LogSNRScheduler against diffusers' own schedulers."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

import logsnr

pytest.importorskip("diffusers")
from diffusers import schedulers as D
from diffusers_loops import TABLE, apart, ddim, dpm, label, loop, network, noise, sampled

from logsnr.integrations.diffusers import LogSNRScheduler, grid, schedule
from logsnr.solvers.runs.noise import Addressed
from logsnr.solvers.runs.normals import seeds_of

MIDPOINT, VE = {"compat": True}, {"frame": "ve"}
TABLES: list[tuple[Any, dict[str, Any]]] = [
    (ddim(timestep_spacing="leading"), {"solver": "ddim"}),
    (ddim(timestep_spacing="trailing"), {"solver": "ddim"}),
    (
        ddim(timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False),
        {"solver": "ddim", "final_sigmas_type": "sigma_min"},
    ),
    (dpm(solver_order=1), {"solver": "dpmpp-1"}),
    (dpm(), MIDPOINT),
    (dpm(solver_type="heun"), {}),
    (dpm(timestep_spacing="leading", steps_offset=1), MIDPOINT),
    (dpm(timestep_spacing="trailing", prediction_type="v_prediction"), MIDPOINT),
    (dpm(prediction_type="sample"), MIDPOINT),
    (dpm(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1), MIDPOINT),
    (dpm(use_karras_sigmas=True), MIDPOINT),
    (dpm(use_lu_lambdas=True), MIDPOINT),
    (dpm(final_sigmas_type="sigma_min", lower_order_final=False), MIDPOINT),
    (D.UniPCMultistepScheduler(**TABLE), {"solver": "unipc-2", "compat": True}),
    (D.EulerDiscreteScheduler(**TABLE), {"solver": "euler", **VE}),
    (D.EulerDiscreteScheduler(**TABLE, timestep_spacing="leading"), {"solver": "euler", **VE}),
    (D.EulerDiscreteScheduler(**TABLE, use_karras_sigmas=True), {"solver": "euler", **VE}),
    (D.EulerDiscreteScheduler(**TABLE, prediction_type="v_prediction"), {"solver": "euler", **VE}),
    (D.HeunDiscreteScheduler(**TABLE, timestep_spacing="trailing"), {"solver": "heun", **VE}),
    (D.HeunDiscreteScheduler(**TABLE, prediction_type="v_prediction"), {"solver": "heun", **VE}),
    (D.KDPM2DiscreteScheduler(**TABLE), {"solver": "dpm-2", **VE}),
    (
        D.CogVideoXDDIMScheduler(prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing"),
        {"solver": "ddim"},
    ),
    (D.EDMEulerScheduler(), {"solver": "ddim"}),
    (D.EDMEulerScheduler(sigma_data=1.0, prediction_type="v_prediction"), {"solver": "ddim"}),
    (D.EDMDPMSolverMultistepScheduler(sigma_schedule="exponential"), MIDPOINT),
    (
        D.EulerDiscreteScheduler(
            **TABLE, timestep_type="continuous", prediction_type="v_prediction", sigma_min=0.002, sigma_max=700.0,
            use_karras_sigmas=True,
        ),
        {"solver": "euler", **VE},
    ),
    (
        D.DEISMultistepScheduler(**TABLE, lower_order_final=False),
        {"solver": "dpm-2m", "final_sigmas_type": "sigma_min"},
    ),
]  # fmt: skip
FLOW: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (D.FlowMatchEulerDiscreteScheduler(), {"solver": "euler"}, {}),
    (D.FlowMatchEulerDiscreteScheduler(shift=3.0), {"solver": "euler"}, {}),
    (D.FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True), {"solver": "euler"}, {}),
    (D.FlowMatchEulerDiscreteScheduler(shift_terminal=0.1), {"solver": "euler"}, {}),
    (D.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), {"solver": "euler"}, {}),
    (D.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), {"solver": "euler"}, {"mu": 0.7}),
    (
        D.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear"),
        {"solver": "euler"},
        {"mu": 0.7, "sigmas": np.linspace(1, 1 / 8, 8)},
    ),
    (D.FlowMatchHeunDiscreteScheduler(shift=3.0), {"solver": "heun"}, {}),
    (dpm(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"), MIDPOINT, {}),
    (
        D.UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"),
        {"solver": "unipc-2", "compat": True},
        {},
    ),
]


@pytest.mark.parametrize(("theirs", "options", "given"), [*((a, o, {}) for a, o in TABLES), *FLOW], ids=label)
def test_the_same_numbers_as_diffusers(theirs: Any, options: dict[str, Any], given: dict[str, Any]) -> None:
    ours = LogSNRScheduler.from_config(theirs.config, **options)
    n = None if "sigmas" in given else 8
    assert apart(sampled(ours, n, **given), sampled(theirs, n, **given)) < 1e-5
    assert len(ours.timesteps) == len(theirs.timesteps)
    assert (ours.timesteps.double() - theirs.timesteps.double()).abs().max() < 0.02
    assert ours.timesteps.dtype == theirs.timesteps.dtype


def test_the_comparison_sees_another_formula() -> None:
    assert apart(sampled(LogSNRScheduler.from_config(dpm().config)), sampled(dpm())) > 1e-4


@pytest.mark.parametrize(
    ("theirs", "options", "least"),
    [
        (ddim(timestep_spacing="linspace"), {"solver": "ddim"}, 1e-1),  # its steps leave gaps
        (dpm(final_sigmas_type="sigma_min"), MIDPOINT, 1e-2),  # its last step is of first order
        (dpm(use_exponential_sigmas=True), MIDPOINT, 1e-3),  # what it tells is cut to integers
        (dpm(use_beta_sigmas=True), MIDPOINT, 1e-3),
        (dpm(rescale_betas_zero_snr=True, prediction_type="v_prediction"), MIDPOINT, 1e-3),  # it starts at sigma = 4096
        (D.LMSDiscreteScheduler(**TABLE), {"solver": "lms-4", **VE}, 5e-5),  # its weights are integrated to 1e-4
    ],
    ids=label,
)
def test_what_differs(theirs: Any, options: dict[str, Any], least: float) -> None:
    """As docs/diffusers.md says, and why."""
    assert least < apart(sampled(LogSNRScheduler.from_config(theirs.config, **options)), sampled(theirs)) < 1.0


@pytest.mark.parametrize(
    ("timesteps", "sigmas"), [([900, 700, 500, 300, 100], None), (None, [14.615, 5.0, 1.0, 0.2, 0.0])]
)
def test_custom_grids_are_those_of_euler(timesteps: Any, sigmas: Any) -> None:
    theirs = D.EulerDiscreteScheduler(**TABLE)
    ours = LogSNRScheduler.from_config(theirs.config, solver="euler", frame="ve")
    given = {"timesteps": timesteps, "sigmas": sigmas}
    assert apart(sampled(ours, None, **given), sampled(theirs, None, **given)) < 1e-5


@pytest.mark.parametrize(("theirs", "options"), [TABLES[1], TABLES[4], FLOW[1][:2]], ids=label)
def test_bf16_pipelines_keep_a_state_in_fp32(theirs: Any, options: dict[str, Any]) -> None:
    """Closer to the run in fp32 than diffusers' own."""
    ours = LogSNRScheduler.from_config(theirs.config, **options)
    exact = sampled(ours, 50)
    got = sampled(ours, 50, torch.bfloat16)
    assert got.dtype == torch.bfloat16
    assert apart(got.float(), exact) < apart(sampled(theirs, 50, torch.bfloat16).float(), exact)


@pytest.mark.parametrize(("theirs", "options"), [TABLES[1], TABLES[4], TABLES[14], TABLES[18]], ids=label)
def test_image_to_image_begins_in_the_middle(theirs: Any, options: dict[str, Any]) -> None:
    ours = LogSNRScheduler.from_config(theirs.config, **options)
    ends = []
    for s in (ours, theirs):
        s.set_timesteps(8)
        begin = 3 * s.order
        x = s.add_noise(noise() * 0.5, noise(), s.timesteps[begin : begin + 1])
        ends.append(loop(s, x, begin))
    assert apart(*ends) < 1e-5


@pytest.mark.parametrize(("theirs", "options"), [TABLES[0], TABLES[1], TABLES[4], FLOW[1][:2]], ids=label)
def test_the_same_run_without_a_pipeline(theirs: Any, options: dict[str, Any]) -> None:
    theirs.set_timesteps(8)
    sch, times = schedule(theirs), grid(theirs)
    flow = isinstance(sch, logsnr.FlowMatching)
    time = "1000t" if flow else None
    head = "velocity" if flow else "eps"
    den = logsnr.Denoiser(network, sch, head, **({"time": time} if time else {}))
    found = logsnr.sample(
        den,
        noise(),
        solver=logsnr.solver(options.get("solver", "dpmpp-2m"), compat=options.get("compat", False)),
        grid=times,
    )
    assert apart(found, loop(theirs, noise())) < 2e-6


def test_zero_terminal_snr_is_exact() -> None:
    ours = LogSNRScheduler(
        **TABLE, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    )
    assert torch.isfinite(sampled(ours)).all()
    assert ours.alphas_cumprod[-1] == 0
    assert ours.sigmas[0] == torch.inf
    with pytest.raises(ValueError, match="frame = 've' has no zero terminal SNR"):
        LogSNRScheduler(**TABLE, rescale_betas_zero_snr=True, frame="ve")


CLIPPED = {"clip_sample": True, "clip_sample_range": 0.8}
BOUNDS = {"thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5}


@pytest.mark.parametrize("bounds", [{"clip_sample": False}, CLIPPED, {"clip_sample": True, **BOUNDS}])
def test_a_learned_variance_is_that_of_ddpm(monkeypatch: pytest.MonkeyPatch, bounds: dict[str, Any]) -> None:
    """With our noise in the place of theirs. The last bounds are those of DeepFloyd IF."""
    theirs = D.DDPMScheduler(variance_type="learned_range", **bounds)
    ours = LogSNRScheduler.from_config(theirs.config, solver="ddpm", solver_options={"variance": "learned"}, seed=2)
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    ours.set_timesteps(timesteps=theirs.timesteps)
    keys, seeds = iter(ours._plan.program.noises), seeds_of(2, torch.device("cpu"), 2, None)
    drawn = lambda shape, **given: Addressed(seeds)(next(keys), torch.empty(shape))  # noqa: E731
    monkeypatch.setattr(sys.modules[type(theirs).__module__], "randn_tensor", drawn)
    ends = []
    for s in (ours, theirs):
        x = noise()
        for t in s.timesteps:
            x = s.step(torch.cat([network(x, t), torch.tanh(2 * x + 0.003 * t)], dim=1), t, x).prev_sample
        ends.append(x)
    assert apart(*ends) < 2e-5  # their table is of fp32


@pytest.mark.parametrize(
    ("theirs", "options"),
    [
        (dpm(**BOUNDS), MIDPOINT),
        (dpm(**BOUNDS, prediction_type="v_prediction", timestep_spacing="trailing"), MIDPOINT),
        (D.UniPCMultistepScheduler(**TABLE, **BOUNDS), {"solver": "unipc-2", "compat": True}),
        (D.EDMDPMSolverMultistepScheduler(**BOUNDS), MIDPOINT),
    ],
    ids=label,
)
def test_bounds_of_x0(theirs: Any, options: dict[str, Any]) -> None:
    ends = [sampled(s) for s in (LogSNRScheduler.from_config(theirs.config, **options), theirs)]
    assert apart(*ends) < 1e-5
    free = LogSNRScheduler.from_config(theirs.config, **options, thresholding=False)
    assert apart(sampled(free), ends[0]) > 1e-2


def test_a_clipped_ddim() -> None:
    """Its noise is that of the clipped x0: of theirs what use_clipped_model_output asks for."""
    theirs = D.DDIMScheduler(**TABLE, **CLIPPED, timestep_spacing="trailing")
    ours = LogSNRScheduler.from_config(theirs.config, solver="ddim")
    theirs.set_timesteps(8)
    assert apart(sampled(ours), loop(theirs, noise(), use_clipped_model_output=True)) < 1e-5


def test_a_learned_variance_needs_one() -> None:
    ours = LogSNRScheduler(**TABLE, solver="ddpm", solver_options={"variance": "learned"})
    ours.set_timesteps(4)
    with pytest.raises(ValueError, match="needs a network that returns twice the channels"):
        loop(ours, noise())
    ours = LogSNRScheduler(**TABLE, solver="ddpm", solver_options={"variance": "learned"}, frame="ve")
    ours.set_timesteps(4)
    with pytest.raises(ValueError, match="of models with a table of betas, in the frame 'vp'"):
        loop(ours, noise())
