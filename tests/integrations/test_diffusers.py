"""LogSNRScheduler against diffusers' own schedulers, with a network that is one line."""

import copy
import json
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch

import logsnr

pytest.importorskip("diffusers")
from diffusers import schedulers as D

from logsnr.integrations.diffusers import LogSNRScheduler, grid, schedule

TABLE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (4, 8, 8)


def network(x: torch.Tensor, t: Any) -> torch.Tensor:
    return torch.sin(1.3 * x + 0.01 * torch.as_tensor(t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))) * 0.8 + 0.1 * x


def noise(batch: int = 2) -> torch.Tensor:
    return logsnr.randn((batch, *SHAPE), seed=0)


def loop(scheduler: Any, x: torch.Tensor, begin: int = 0, edit: Any = None, **step: Any) -> torch.Tensor:
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    for t in scheduler.timesteps[begin:]:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(seen, t), t, x, return_dict=False, **step)[0]
        x = edit(x) if edit else x
    return x


def sampled(
    scheduler: Any, n: Any = 8, dtype: torch.dtype = torch.float32, batch: int = 2, **given: Any
) -> torch.Tensor:
    scheduler.set_timesteps(n, **given)
    return loop(scheduler, (noise(batch) * float(getattr(scheduler, "init_noise_sigma", 1.0))).to(dtype))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def ddim(**options: Any) -> Any:
    return D.DDIMScheduler(**TABLE, clip_sample=False, **options)


def dpm(**options: Any) -> Any:
    return D.DPMSolverMultistepScheduler(**{**TABLE, **options})


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


def label(value: Any) -> str:
    return type(value).__name__.replace("Scheduler", "") if hasattr(value, "config") else ""


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


def test_a_sample_alone_is_the_sample_in_a_batch() -> None:
    ours = LogSNRScheduler(**TABLE, solver="sde-dpmpp-2m")
    generators = [torch.Generator().manual_seed(i) for i in range(4)]
    ours.set_timesteps(8)
    batch = loop(ours, noise(4), generator=generators)
    ours.set_timesteps(8)
    alone = loop(ours, noise(4)[2:3], generator=[torch.Generator().manual_seed(2)])
    assert apart(alone, batch[2:3]) < 1e-6


def test_noise_comes_from_the_generator_or_the_seed() -> None:
    ours = LogSNRScheduler(prediction_type="flow_prediction", solver="sde-dpmpp-2m", seed=3)
    first, again = sampled(ours), sampled(ours)
    assert torch.equal(first, again)
    ours.set_timesteps(8)
    assert apart(loop(ours, noise(), generator=torch.Generator().manual_seed(1)), first) > 1e-2
    torch.manual_seed(0)
    free = LogSNRScheduler(prediction_type="flow_prediction", solver="sde-dpmpp-2m")
    assert apart(sampled(free), sampled(free)) > 1e-2


def test_two_threads_share_a_scheduler() -> None:
    ours = LogSNRScheduler(**TABLE)
    alone = [sampled(ours, n) for n in (9, 14)]
    found: dict[int, torch.Tensor] = {}
    ready = threading.Barrier(2)

    def work(n: int) -> None:
        ours.set_timesteps(n)
        ready.wait(20)
        found[n] = loop(ours, noise())

    threads = [threading.Thread(target=work, args=(n,)) for n in (9, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[n], a) for n, a in zip((9, 14), alone, strict=True))


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_place", [True, False])
def test_edits_between_steps_are_noticed(dtype: torch.dtype, in_place: bool) -> None:
    def edit(x: torch.Tensor) -> torch.Tensor:
        y = x if in_place else x.clone()
        y[:, :2] = 0.25
        return y

    ours, theirs = (
        LogSNRScheduler(**TABLE, solver="ddim", timestep_spacing="trailing"),
        ddim(timestep_spacing="trailing"),
    )
    ends = []
    for s, kind in ((ours, dtype), (theirs, torch.float32)):
        s.set_timesteps(8)
        ends.append(loop(s, noise().to(kind), edit=edit).float())
    assert apart(*ends) < (1e-5 if dtype == torch.float32 else 2e-2)
    assert (ends[0][:, :2] == 0.25).all()


def test_what_is_not_edited_keeps_its_fp32_state() -> None:
    ours, ends = LogSNRScheduler(**TABLE), []
    for edit in (None, torch.clone):
        ours.set_timesteps(20)
        ends.append(loop(ours, noise().bfloat16(), edit=edit))
    assert torch.equal(*ends)


def test_inference_mode() -> None:
    ours = LogSNRScheduler(**TABLE)
    with torch.inference_mode():
        found = sampled(ours)
    assert torch.equal(found, sampled(ours))


CLASSES = ["DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete",
           "UniPCMultistep", "DPMSolverMultistep", "FlowMatchEulerDiscrete"]  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_configs_come_in_without_a_warning_and_go_out_whole(name: str, caplog: pytest.LogCaptureFixture) -> None:
    from diffusers.utils import logging

    kind = getattr(D, f"{name}Scheduler")
    changed = (
        {"shift": 2.5} if name.startswith("Flow") else {**TABLE, "steps_offset": 1, "timestep_spacing": "trailing"}
    )
    theirs = kind(**changed)
    logging.enable_propagation()
    ours = LogSNRScheduler.from_config(theirs.config)
    logging.disable_propagation()
    assert not caplog.records
    back = kind.from_config(ours.config)
    assert {key: back.config[key] for key in theirs.config if key[0] != "_"} == {
        key: value for key, value in theirs.config.items() if key[0] != "_"
    }


@pytest.mark.parametrize("name", LogSNRScheduler._compatibles)
@pytest.mark.parametrize("options", [TABLE, {"prediction_type": "flow_prediction", "shift": 3.0, **TABLE}])
def test_configs_come_back_from_all_classes(name: str, options: dict[str, Any]) -> None:
    if not hasattr(D, name) or name == "DPMSolverSDEScheduler":  # which needs another library
        pytest.skip(f"this diffusers has no {name}")
    ours = LogSNRScheduler(**options)
    back = LogSNRScheduler.from_config(getattr(D, name).from_config(ours.config).config).config
    keys = [key for key in ours.config if key != "_use_default_values"]
    assert {key: back[key] for key in keys} == {key: ours.config[key] for key in keys}
    assert set(back["_use_default_values"]) == set(ours.config["_use_default_values"])


def test_the_model_is_kept_where_defaults_describe_it() -> None:
    """diffusers drops all defaults of another class, even those of the table."""
    ours = LogSNRScheduler.from_config(D.LCMScheduler().config)
    assert (ours.config.beta_schedule, ours.config.beta_start) == ("scaled_linear", 0.00085)
    ours = LogSNRScheduler.from_config(D.CosineDPMSolverMultistepScheduler().config)
    theirs = D.CosineDPMSolverMultistepScheduler()
    for s in (ours, theirs):
        s.set_timesteps(5)
    assert (ours.timesteps - theirs.timesteps).abs().max() < 1e-6
    assert ours.config.prediction_type == "v_prediction"


def test_save_and_load(tmp_path: Any) -> None:
    program = logsnr.solver("ddim").program(logsnr.FlowMatching(), [1.0, 0.7, 0.2, 0.0])
    for ours in (
        LogSNRScheduler(**TABLE, solver="sde-dpmpp-2m", solver_options={"eta": 0.5}, seed=1),
        LogSNRScheduler(prediction_type="flow_prediction", solver=program),
    ):
        ours.save_pretrained(tmp_path)
        loaded = LogSNRScheduler.from_pretrained(tmp_path)
        assert torch.equal(sampled(loaded, 3), sampled(ours, 3))
        for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(sampled(copied, 3), sampled(ours, 3))


def test_a_program_is_a_solver() -> None:
    named = LogSNRScheduler(**TABLE, grid="logsnr")
    named.set_timesteps(6)
    sch = schedule(named)
    program = logsnr.solver("dpmpp-2m").program(sch, grid(named))
    for given in (program, program.to_json()):
        ours = LogSNRScheduler(**TABLE, solver=given)
        assert apart(sampled(ours, 6), sampled(named, 6)) < 1e-5
    with pytest.raises(ValueError, match="a program of 6 steps, not of 7"):
        ours.set_timesteps(7)
    ours.set_timesteps(6)
    ours.set_begin_index(2)
    with pytest.raises(ValueError, match="cannot begin at timestep 2: take a named solver"):
        loop(ours, noise(), 2)
    with pytest.raises(ValueError, match="made for another schedule"):
        LogSNRScheduler(prediction_type="flow_prediction", solver=program)


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


def test_a_learned_variance_is_left_out() -> None:
    ours = LogSNRScheduler(**TABLE)
    ours.set_timesteps(4)
    x = noise()
    for t in ours.timesteps:
        x = ours.step(torch.cat([network(x, t), x], dim=1), t, x).prev_sample
    assert torch.equal(x, sampled(ours, 4))


def test_zero_terminal_snr_is_exact() -> None:
    ours = LogSNRScheduler(
        **TABLE, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    )
    assert torch.isfinite(sampled(ours)).all()
    assert ours.alphas_cumprod[-1] == 0
    assert ours.sigmas[0] == torch.inf
    with pytest.raises(ValueError, match="frame = 've' has no zero terminal SNR"):
        LogSNRScheduler(**TABLE, rescale_betas_zero_snr=True, frame="ve")


def test_plans_are_kept() -> None:
    ours = LogSNRScheduler(**TABLE)
    ours.set_timesteps(20, "cpu")
    plan = ours._plan
    ours.set_timesteps(20, "cpu")
    assert ours._plan is plan
    ours._internal_dict = type(ours._internal_dict)({**ours.config, "timestep_spacing": "trailing"})
    ours.set_timesteps(20, "cpu")
    assert ours.timesteps[0] == 999
    assert ours._plan is not plan


def test_what_pipelines_read() -> None:
    ours = LogSNRScheduler(**TABLE, solver="heun", frame="ve")
    assert ours.order == 2
    assert len(ours) == 1000
    assert (ours.num_inference_steps, ours.step_index, ours.begin_index) == (None, None, None)
    assert len(ours.timesteps) == 1000
    ours.set_timesteps(5)
    ours.set_begin_index(2 * ours.order)
    assert (ours.num_inference_steps, ours.begin_index) == (5, 4)
    assert len(ours.sigmas) == len(ours.timesteps) + 1
    ours.timesteps = ours.timesteps.half()
    assert ours.timesteps.dtype == torch.float16
    assert json.loads(ours.to_json_string())["frame"] == "ve"
    with pytest.raises(ValueError, match="timestep 3 is within a step of heun, which begins at another: take 2 or 4"):
        ours.set_begin_index(3)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prediction_type": "noise"}, "prediction_type = 'noise' is not one of 'epsilon'"),
    ({"timestep_spacing": "middle"}, "timestep_spacing = 'middle' is not one of 'linspace'"),
    ({"frame": "edm"}, "frame = 'edm' is not one of 'vp', 've'"),
    ({"beta_schedule": "cubic"}, "beta_schedule = 'cubic' is not one of linear"),
    ({"solver": "dpmp-2m"}, "solver = 'dpmp-2m' is unknown; did you mean"),
    ({"solver": "{}"}, "this is not a program"),
    ({"solver_options": {"eta": 1.0}}, "eta = 1.0 is not an option of dpmpp-2m"),
    ({"shift": 3.0}, "are of flow models: prediction_type='flow_prediction'"),
    ({"trained_betas": [0.1, 1.2]}, "betas must lie between 0 and 1"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogSNRScheduler(**options)


CALLS: list[tuple[dict[str, Any], str]] = [
    ({}, "num_inference_steps must be an integer of at least 1, not None"),
    ({"num_inference_steps": 0}, "num_inference_steps must be an integer of at least 1, not 0"),
    ({"num_inference_steps": 2000}, "2000 is more than the 1000 steps"),
    ({"timesteps": [5, 4], "sigmas": [3.0, 2.0, 0.0]}, "give one of timesteps and sigmas"),
    ({"num_inference_steps": 3, "timesteps": [5, 4]}, "does not fit timesteps for 2 steps"),
    ({"timesteps": [4, 5]}, "must go from noise to data"),
    ({"timesteps": [1200, 5]}, "timesteps must lie between 0 and 999"),
    ({"sigmas": [[1.0]]}, "1-D lists of numbers"),
]


@pytest.mark.parametrize(("given", "message"), CALLS)
def test_wrong_timesteps(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogSNRScheduler(**TABLE).set_timesteps(**given)


def test_steps_out_of_order() -> None:
    ours, x = LogSNRScheduler(**TABLE), noise()
    with pytest.raises(ValueError, match="call set_timesteps first"):
        ours.step(x, 999, x)
    ours.set_timesteps(3)
    with pytest.raises(ValueError, match="timestep 500 is not one of this run"):
        ours.step(x, 500, x)
    with pytest.raises(ValueError, match="begin_index = 3 is not one of the 3 timesteps"):
        ours.set_begin_index(3)
    ours.step(x, ours.timesteps[0], x)
    with pytest.raises(ValueError, match="timestep 999, but 666 is next"):
        ours.step(x, ours.timesteps[0], x)
    with pytest.raises(TypeError, match="a scheduler cannot be copied within a run"):
        copy.deepcopy(ours)
    with pytest.raises(TypeError, match="solver_options="):
        ours.step(x, ours.timesteps[1], x, eta=0.5)
    for t in ours.timesteps[1:]:
        ours.step(x, t, x, eta=0.0)
    with pytest.raises(IndexError, match="all 3 steps are done"):
        ours.step(x, 999, x)


def test_other_bad_input() -> None:
    with pytest.raises(TypeError, match="solver must be a name, a Program or its JSON"):
        LogSNRScheduler(solver=3)
    with pytest.raises(ValueError, match="needs set_timesteps"):
        LogSNRScheduler(prediction_type="flow_prediction", use_dynamic_shifting=True).set_timesteps(4)
    with pytest.raises(ValueError, match="use_karras_sigmas and grid exclude each other"):
        LogSNRScheduler(use_karras_sigmas=True, grid="karras").set_timesteps(4)
    with pytest.raises(ValueError, match="sigma_data needs sigma_min, sigma_max"):
        LogSNRScheduler(sigma_data=0.5)
    with pytest.raises(ValueError, match="takes sigmas, not timesteps"):
        LogSNRScheduler.from_config(D.EDMEulerScheduler().config).set_timesteps(timesteps=[1.0, 0.5])
    with pytest.raises(ValueError, match=r"call scheduler.set_timesteps\(n\) first"):
        grid(ddim())
    with pytest.raises(TypeError, match="must be a scheduler of diffusers"):
        schedule(3)
    ours = LogSNRScheduler(solver="sde-dpmpp-2m")
    ours.set_timesteps(3)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
        ours.step(noise(), ours.timesteps[0], noise(), generator=5)


@pytest.mark.usefixtures("without_root")
def test_a_pipeline() -> None:
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
