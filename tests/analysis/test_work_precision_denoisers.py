"""Work-precision tables of denoisers, and what cannot be measured."""

from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis import Gaussian, WorkPrecision, transfer, work_precision
from logsnr.analysis.metrics import w2_fitted

SCH = logsnr.VPLinear()
STDS = np.array([0.05, 0.3, 1.0])
DATA = Gaussian([0.5, -1.0, 0.0], STDS**2)


def at(table: WorkPrecision, solver: str, nfe: int) -> Any:
    (row,) = (row for row in table.rows if (row.solver, row.nfe) == (solver, nfe))
    return row


def gaussian_model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return DATA.posterior(x, SCH.alpha(t.double()), SCH.sigma(t.double()))[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_denoisers_are_compared_with_an_integration(dtype: torch.dtype) -> None:
    """Without an exact answer the errors are still those against the flow, up to the reference error told."""
    den = logsnr.Denoiser(gaussian_model, SCH, "eps", dtype=dtype)
    found = work_precision(den, ["ddim"], (5, 10), event_shape=(3,), samples=20, repeats=1, name="net")
    said = found.conditions
    assert (said.problem, said.dtype, said.start) == ("net", str(dtype)[6:], "pure noise")
    assert said.reference_error < (1e-3 if dtype == torch.float32 else 1e-7)
    assert f"DOP853 in {said.dtype}" in said.reference
    noise = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (SCH.sigma(1.0) * noise).to(dtype)
    exact = DATA.flow(x.double(), SCH, 1.0, SCH.t_end)
    assert said.w2_noise == pytest.approx(w2_fitted(exact[:10], exact[10:]) / np.sqrt(2), rel=1e-2)
    for row in found.rows:
        y = logsnr.sample(den, x, solver="ddim", nfe=row.nfe)
        errors = (y.double() - exact).square().mean(1).sqrt().numpy()
        assert row.median.value == pytest.approx(np.median(errors), abs=2 * said.reference_error)


def test_a_precise_network_is_the_reference_of_a_narrow_one() -> None:
    """With `precise` the errors of a bfloat16 model include its rounding; without, it is refused."""
    narrow, wide = (logsnr.Denoiser(gaussian_model, SCH, "eps", dtype=d) for d in (torch.bfloat16, torch.float64))
    options = dict(event_shape=(3,), samples=8, repeats=1)
    found = work_precision(narrow, "dpmpp-3m", 60, precise=wide, **options)
    truncation = transfer("dpmpp-3m", SCH, STDS, nfe=60)
    assert found.conditions.reference_error < 1e-7
    assert found.rows[0].rms.value > 1e-3 > 10 * (truncation.error * truncation.spread).max()
    with pytest.raises(ValueError, match="too coarse to be integrated to its own reference; give precise="):
        work_precision(narrow, "ddim", 5, **options)


def idle(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return pytest.fail("work has begun")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"solvers": []}, "solvers is empty"),
        ({"solvers": "dpmpp2m"}, "did you mean 'dpmpp-2m'"),
        ({"solvers": ["ddim", "bosh3"]}, "solver = 'bosh3' chooses its own steps"),
        ({"solvers": "rk4", "nfes": (2, 3)}, "nothing is possible: rk4 needs at least 4"),
        ({"nfes": ()}, "nfes is empty"),
        ({"nfes": (5, 0)}, "nfe must be an integer of at least 1, not 0"),
        ({"nfes": 2.5}, "nfes must be an integer or several, not 2.5"),
        ({"nfes": (2.5,)}, "nfe must be an integer of at least 1, not 2.5"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"startup": "jump"}, "startup must be 'ramp' or 'single-step', not 'jump'"),
        ({"samples": 3}, "samples must be an integer of at least 4, not 3"),
        ({"repeats": 0}, "repeats must be an integer of at least 1, not 0"),
        ({"sch": logsnr.EDM()}, "but the denoiser was made for VPLinear"),
        ({"event_shape": None}, "either x, start states"),
        ({"x": torch.zeros(5, 2)}, "either x, start states"),
        ({"event_shape": (0,)}, r"event_shape must hold positive integers, not \(0,\)"),
        ({"event_shape": None, "x": torch.zeros(3, 2)}, r"len\(x\) must be an integer of at least 4, not 3"),
        ({"t_start": 2.0}, "outside the times"),
        ({"problem": DATA}, "event_shape is for a denoiser"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_work(changed: dict[str, Any], said: str) -> None:
    """Arguments that do not fit raise ValueError before the model is called, and say what would be right."""
    options = dict(problem=logsnr.Denoiser(idle, SCH, "eps"), solvers="ddim", nfes=5, event_shape=(2,)) | changed
    with pytest.raises(ValueError, match=said):
        work_precision(**options)
