"""LogSNRScheduler in the loops of pipelines: threads, edits, noise, order."""

import copy
import json
import threading
import warnings

import pytest
import torch

import logsnr

pytest.importorskip("diffusers")
from diffusers import schedulers as D
from diffusers_loops import TABLE, apart, ddim, loop, network, noise, sampled

from logsnr.integrations.diffusers import LogSNRScheduler, grid, schedule


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


def test_a_corrector_keeps_edits() -> None:
    """Of data of one point, 0, where every step is exact, an edit is scaled down as the noise is. The corrector of
    diffusers starts from what was before the edit."""
    lasting = []
    for s in (LogSNRScheduler(**TABLE, solver="unipc-2", compat=True), D.UniPCMultistepScheduler(**TABLE)):
        ends = []
        for edit in (0.0, 1.0):
            s.set_timesteps(8)
            levels = (1 - s.alphas_cumprod[s.timesteps]).sqrt()
            x = noise()
            for n, t in enumerate(s.timesteps[:-1]):
                x = s.step(x / levels[n], t, x).prev_sample + edit * (n == 3)
            ends.append(x * levels[4] / levels[-1])
        lasting.append(ends[1] - ends[0])
    assert (lasting[0] - 1).abs().max() < 1e-5
    assert lasting[1].abs().max() < 1e-5


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


def test_a_learned_variance_is_left_out() -> None:
    ours = LogSNRScheduler(**TABLE)
    ours.set_timesteps(4)
    x = noise()
    for t in ours.timesteps:
        x = ours.step(torch.cat([network(x, t), x], dim=1), t, x).prev_sample
    assert torch.equal(x, sampled(ours, 4))


def test_a_run_that_blows_up_warns() -> None:
    for solver, n in (("seeds-2", 8), ("pndm", 4)):
        ours = LogSNRScheduler(beta_schedule="squaredcos_cap_v2", solver=solver)
        with pytest.warns(UserWarning, match=f"{solver}, {n} steps: too few steps for this method here: normal data"):
            ours.set_timesteps(n)
    with warnings.catch_warnings(action="error"):
        LogSNRScheduler(beta_schedule="squaredcos_cap_v2").set_timesteps(4)


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
