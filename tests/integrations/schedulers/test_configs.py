"""Configs of diffusers' schedulers into LogSNRScheduler and out, files, bad options."""

import copy
import pickle
from typing import Any

import pytest
import torch

import logsnr

pytest.importorskip("diffusers")
from diffusers import schedulers as D
from diffusers_loops import TABLE, ddim, noise, sampled

from logsnr.integrations.diffusers import LogSNRScheduler, grid, schedule

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


@pytest.mark.parametrize(
    "name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchHeunDiscreteScheduler"]
)
def test_flow_configs_come_back(name: str) -> None:
    """Also where the class has a sigma_data, which is not the flow model's."""
    ours = LogSNRScheduler(prediction_type="flow_prediction", shift=3.0)
    back = LogSNRScheduler.from_config(getattr(D, name).from_config(ours.config).config).config
    assert (back.prediction_type, back.shift, back.sigma_data) == ("flow_prediction", 3.0, None)


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


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prediction_type": "noise"}, "prediction_type = 'noise' is not one of 'epsilon'"),
    ({"timestep_spacing": "middle"}, "timestep_spacing = 'middle' is not one of 'linspace'"),
    ({"frame": "edm"}, "frame = 'edm' is not one of 'vp', 've'"),
    ({"beta_schedule": "cubic"}, "beta_schedule = 'cubic' is not one of linear"),
    ({"solver": "dpmp-2m"}, "solver = 'dpmp-2m' is unknown; did you mean"),
    ({"solver": "{}"}, "this is not a program"),
    ({"solver_options": {"eta": 1.0}}, "eta = 1.0 is not an option of dpmpp-2m"),
    ({"shift": 3.0}, "are of flow models: prediction_type='flow_prediction'"),
    ({"prediction_type": "flow_prediction", "shift": 0.0}, "shift and flow_shift must be positive, not 0.0 and 1.0"),
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
    with pytest.raises(ValueError, match="generator is a list of 3 for 2 samples"):
        ours.step(noise(), ours.timesteps[0], noise(), generator=[torch.Generator()] * 3)
    with pytest.raises(TypeError, match=r"model_output must be a tensor, as model\(...\)\[0\] or .sample is, not dict"):
        ours.step({}, ours.timesteps[0], noise())
    flow = LogSNRScheduler(prediction_type="flow_prediction")
    with pytest.raises(ValueError, match="timestep 1500 must lie between 0 and 1000"):
        flow.add_noise(noise(), noise(), torch.tensor([1500.0]))
    with pytest.raises(ValueError, match="'v_prediction' and a flow config disagree"):
        LogSNRScheduler.from_config({"shift": 3.0, "prediction_type": "v_prediction"})
