"""Programs with a constant part: a column that no slot holds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from parallel_runs import exact

import logsnr
from logsnr import analysis
from logsnr.solvers.programs.call import ONE, Call
from logsnr.solvers.programs.program import Program

SCH = logsnr.VPLinear()
SHAPE = (3, 4)
GAUSSIAN = analysis.Gaussian(np.linspace(-1, 2, 12).reshape(SHAPE), np.geomspace(0.1, 3, 12).reshape(SHAPE))


def program(event: tuple[int, ...], seed: int = 0) -> Program:
    """DDIM of two slots with constants at every call, the last read first."""
    random, calls = np.random.default_rng(seed), []
    grid = np.asarray(logsnr.grid(SCH, 5))
    for n, (s, t) in enumerate(pairwise(grid)):
        a, b = SCH.sigma(t) / SCH.sigma(s), 0.1 * random.normal(size=event)
        x0 = SCH.alpha(t) - a * SCH.alpha(s)
        matrix = np.broadcast_to(np.reshape([x0, 0.0, 0.0, a], (1, 4, *[1] * len(event))), (1, 4, *event)).copy()
        matrix[0, 2] = b
        calls.append(Call(s, (ONE, 0), (0,), matrix, node=n + 1))
    return Program("shifted", 1, tuple(grid), tuple(calls))


def run(table: Program, dtype: torch.dtype = torch.float64, **options: object) -> torch.Tensor:
    den = GAUSSIAN.denoiser(SCH, "x0")
    x = logsnr.randn((2, *SHAPE), seed=0, dtype=torch.float64).to(dtype)
    return logsnr.sample(logsnr.Denoiser(den.model, SCH, "x0"), x, solver=table, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("event", [(), (4,), SHAPE])
def test_executors_agree(event: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    table = program(event)
    assert table.constant
    x = logsnr.randn((2, *SHAPE), seed=0, dtype=torch.float64)
    matrices = None if not event else [torch.from_numpy(np.array(call.matrix)) for call in table]
    wanted = table.interpret(x, GAUSSIAN.pair(SCH), matrices=matrices)
    found = run(table)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    assert torch.equal(run(Program.from_json(table.to_json())), found)
    for window in (2, None):
        assert torch.equal(run(table, parallel=exact(window=window)), found)
    monkeypatch.setenv("LOGSNR_BACKEND", "torch")
    assert torch.equal(run(table), found)


def test_models_of_half_precision() -> None:
    """The cast and the constant are two more slots."""
    den = logsnr.Denoiser(lambda x, t: (x * 0.5).half(), SCH, "x0", dtype=torch.float16)
    x = logsnr.randn((2, *SHAPE), seed=0)
    table = program(SHAPE)
    halved = table.interpret(x.double(), lambda x, t: ((h := 0.5 * x), (x - SCH.alpha(t) * h) / SCH.sigma(t)),
                             matrices=[torch.from_numpy(np.array(call.matrix)) for call in table])  # fmt: skip
    torch.testing.assert_close(logsnr.sample(den, x, solver=table).double(), halved, rtol=0, atol=5e-3)


@pytest.mark.parametrize("event", [(), SHAPE])
def test_moments_are_exact(event: tuple[int, ...]) -> None:
    """The mean of what is generated moves by what the constants add, step by step; the variance does not."""
    table, plain = program(event), logsnr.solver("ddim").program(SCH, logsnr.grid(SCH, 5))
    found, without = (analysis.sampler_moments(one, GAUSSIAN, SCH) for one in (table, plain))
    x = (SCH.alpha(table.grid[0]) * GAUSSIAN.mean)[None]
    matrices = None if not event else [torch.from_numpy(np.array(call.matrix)) for call in table]
    mean = table.interpret(x, GAUSSIAN.pair(SCH), matrices=matrices)[0]
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.cov, without.cov, rtol=1e-12, atol=1e-12)
    full = analysis.Gaussian(np.zeros(2), np.array([[1.0, 0.5], [0.5, 1.0]]))
    with pytest.raises(ValueError, match="adds constants"):
        analysis.sampler_moments(program(()), full, SCH)


def test_text_and_bad_programs() -> None:
    text = str(program(()))
    assert "\n" in text
    assert "256" not in text
    with pytest.raises(ValueError, match="writes"):
        Call(0.5, (0,), (ONE,), np.ones((1, 3)))
    with pytest.raises(ValueError, match="at"):
        Call(0.5, (0,), (0,), np.ones((1, 3)), at=ONE)
    with pytest.raises(ValueError, match="constants"):
        analysis.picard_sweeps(program(()), SCH, 1.0)
