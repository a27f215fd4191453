"""Peak memory of a whole run on a large state."""

import gc
import tracemalloc
from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from sampled import sampled
from torch.profiler import ProfilerActivity, profile

import logsnr

F32, F16 = torch.float32, torch.float16
SHAPE = (8, 16, 128, 128)
STATE = 4 * 8 * 16 * 128 * 128  # bytes, fp32


def peak(run: Callable[[], object]) -> int:
    """Bytes that torch's allocator and Python held at once, beyond what they held before the run.

    The least of three runs after a first: other threads of the process (the test runner has some) are traced as well,
    and what the run itself holds is in all three.
    """
    run()
    return min(held(run) for _ in range(3))


def held(run: Callable[[], object]) -> int:
    """:func:`peak` of one run, with all that happens meanwhile."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        tracemalloc.start()
        run()
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    changes = (e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    return max(accumulate(changes), default=0) + python


def loop(solver: str, prediction: str, dtype: torch.dtype) -> Callable[[], object]:
    """20 steps with a model that allocates nothing."""
    answer = torch.zeros(SHAPE, dtype=dtype)
    den = logsnr.Denoiser(lambda x, t: answer, logsnr.VPLinear(), prediction, dtype=dtype)
    x = torch.ones(SHAPE)
    return lambda: logsnr.sample(den, x, solver=solver, steps=20)


STATES = {
    "ddim": 1,
    "dpmpp-2m": 2,  # and one output of the model
    "deis-4": 4,  # and three outputs
    "dpmpp-2s": 2,  # and a stage
    "dpmpp-3s": 3,  # and a stage and the first output of the step
    "heun": 3,
}


@pytest.mark.parametrize(("solver", "prediction", "dtype"), sampled(STATES, ["x0", "eps"], [F32, F16], every=3))
def test_peak_memory(solver: str, prediction: str, dtype: torch.dtype) -> None:
    """At its peak a run holds the state and its solver's history or stages, the input of a model in half precision
    beside them, and 1 % of a state more."""
    states = STATES[solver]
    cast = 0 if dtype is F32 else STATE // 2
    assert STATE * states <= peak(loop(solver, prediction, dtype)) - cast <= STATE * (states + 0.01)


def test_the_count_sees_what_torch_and_python_hold() -> None:
    """A sum of two products holds three tensors of the state's size at once, and a Python object counts as well."""
    x = torch.ones(SHAPE)
    for expected, run in ((3, lambda: 2 * x + 3 * x), (2, lambda: bytearray(2 * STATE))):
        assert expected * STATE <= peak(run) <= (expected + 0.01) * STATE
