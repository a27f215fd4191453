"""Runs that stop being finite say where and in which samples, and can return the others."""

import pickle
from typing import Any

import pytest
import torch

import logsnr
from logsnr.solvers.finite import all_finite, broken_samples

SCH = logsnr.VPLinear()
X = logsnr.randn((3, 2, 4), seed=1)
RUNS = [{}, {"parallel": logsnr.Picard()}, {"trajectory": True}, {"parallel": logsnr.Picard(), "trajectory": True}]


def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """NaN for a sample whose first element is large, from t = 0.5 on."""
    marked = (x.reshape(len(x), -1)[:, 0].abs() > 100) & (t < 0.5)
    return torch.where(marked[:, None, None], float("nan"), 0.9 * x)


def marked() -> torch.Tensor:
    x = X.clone()
    x[1, 0, 0] = 1e4
    return x


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_errors_name_call_time_and_samples(options: dict) -> None:
    den = logsnr.Denoiser(broken, SCH, "eps")
    with pytest.raises(logsnr.NonFiniteError, match=r'in sample 1 of 3; on_nan="keep" returns the others') as found:
        logsnr.sample(den, marked(), steps=8, **options)
    assert found.value.samples == (1,)
    assert found.value.t < 0.5
    again = pickle.loads(pickle.dumps(found.value))
    assert (str(again), again.samples) == (str(found.value), (1,))


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_the_other_samples_are_kept(options: dict) -> None:
    """They are what they are alone, and the result says which failed."""
    den = logsnr.Denoiser(broken, SCH, "eps")
    with pytest.warns(UserWarning, match="in sample 1 of 3"):
        found = logsnr.solve(den, marked(), steps=8, on_nan="keep", **options)
    assert found.failed == (1,)
    assert torch.isnan(found.x[1]).any()
    assert torch.equal(found.x[[0, 2]], logsnr.sample(den, X[[0, 2]], steps=8, **options))
    assert found.trajectory is None or found.trajectory.shape == (9, 3, 2, 4)


def test_infinities_in_x_are_named_even_if_the_model_is_finite() -> None:
    """A model that clips gives finite answers to an infinite state."""
    x = X.clone()
    x[2, 0, 0] = float("inf")
    den = logsnr.Denoiser(lambda x, t: x.clamp(-1, 1), SCH, "eps")
    for options in ({}, {"parallel": logsnr.Picard()}):
        with pytest.raises(ValueError, match=r"x holds infinities or NaNs, in sample 2 of 3"):
            logsnr.sample(den, x, steps=4, **options)


def test_results_that_half_precision_cannot_hold() -> None:
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, -4e5), logsnr.FlowMatching(), "velocity", dtype=torch.float32)
    with pytest.raises(logsnr.NonFiniteError, match=r"the result reaches 4e\+05, more than torch.float16 holds"):
        logsnr.sample(den, X.half(), solver="euler", steps=3)


@pytest.mark.filterwarnings("ignore")
def test_states_that_overflow_are_seen() -> None:
    """The model's answers are finite all the time."""
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, -3e38), logsnr.EDM(), "eps")
    with pytest.raises(logsnr.NonFiniteError, match="the state is no longer finite"):
        logsnr.sample(den, X * 80, solver="euler", steps=3)


def overflow() -> tuple[logsnr.Denoiser, torch.Tensor, dict[str, Any]]:
    """Of sample 1 of 3 at call 7 of 10, under a model that clips what it sees: all answers are finite."""

    def clipping(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        grow = (t < 0.5)[:, None, None] & (x[:, :1, :1] > 0)
        return torch.where(grow, -3e38 * torch.ones_like(x), x.clamp(-1, 1))

    den, x = logsnr.Denoiser(clipping, logsnr.FlowMatching(), "velocity"), X.clone()
    x[:, 0, 0] = torch.tensor([-1.0, 1.0, -1.0])
    x[1, 0, 1] = 3.4e38  # the answers push it beyond the largest number
    return den, x, {"solver": "euler", "steps": 10, "grid": "time"}


@pytest.mark.filterwarnings("ignore")
def test_every_fourth_call_looks_at_the_state() -> None:
    """So the run ends soon after a state overflows, and says in which samples; it can be asked to go on."""
    den, x, given = overflow()
    with pytest.raises(logsnr.NonFiniteError, match=r"the state is no longer finite at call 8 of 10.*1 of 3") as found:
        logsnr.sample(den, x, **given)
    assert (found.value.samples, found.value.call) == ((1,), 7)
    assert found.value.t == pytest.approx(0.3)
    kept = logsnr.solve(den, x, on_nan="keep", **given)
    assert kept.failed == (1,)
    assert torch.equal(kept.x[[0, 2]], logsnr.sample(den, x[[0, 2]], **given))


@pytest.mark.filterwarnings("ignore")
def test_a_trajectory_tells_where_a_state_overflows_in_parallel() -> None:
    """Without one only the end is looked at."""
    den, x, given = overflow()
    given["parallel"] = logsnr.Picard(tol=0.0)
    with pytest.raises(logsnr.NonFiniteError, match=r"at call 10 of 10.*in sample 1 of 3.*trajectory=True says where"):
        logsnr.sample(den, x, **given)
    with pytest.raises(logsnr.NonFiniteError, match=r"the state is no longer finite at call [78] of 10") as found:
        logsnr.sample(den, x, trajectory=True, **given)
    assert found.value.samples == (1,)


class Elsewhere(torch.Tensor):
    """A tensor that says it is not on the CPU."""

    is_cpu = False


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("there", [torch.Tensor, Elsewhere])
def test_one_element_is_enough(dtype: torch.dtype, there: type) -> None:
    """Of many, wherever it is, on any device; and large numbers whose sum overflows are finite."""
    fine = torch.full((3, 50), torch.finfo(dtype).max, dtype=dtype)
    assert all_finite(fine.as_subclass(there))
    assert broken_samples(fine, -fine) == ()
    for value in (float("inf"), float("-inf"), float("nan")):
        for sample, place in ((0, 0), (1, 17), (2, 49)):
            x = fine.clone()
            x[sample, place] = value
            assert not all_finite(x.as_subclass(there))
            assert broken_samples(fine, x) == (sample,)


def test_on_nan_has_two_values() -> None:
    with pytest.raises(ValueError, match=r"on_nan must be 'raise' or 'keep', not 'drop'"):
        logsnr.sample(logsnr.Denoiser(broken, SCH), X, steps=2, on_nan="drop")
