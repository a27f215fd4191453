"""How `tune` differentiates: what has no forward mode, and what rounds."""

import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture

SCH = logsnr.VPLinear()
DATA = GaussianMixture([[-1.0, 0.3], [0.8, -0.6], [0.5, 1.0]], [[0.04, 0.09], [0.02, 0.05], [0.06, 0.01]])
DEN = DATA.denoiser(SCH)
X = logsnr.start(SCH, (96, 2), seed=0, dtype=torch.float64)
END = DATA.reference(X, SCH, SCH.t_start, SCH.t_end)


def test_a_model_without_forward_mode_is_tuned_by_differences() -> None:
    def numpy_model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(DEN.model(x, t).numpy().copy())

    den = logsnr.Denoiser(numpy_model, SCH, "x0")
    options = {"gauge": "eps", "iterations": 3, "reference": END}
    program, other = (logsnr.tune(d, X, 4, **options) for d in (den, DEN))
    assert program.provenance["derivatives"] == "differences"
    medians = [float(p.provenance["held-out median"]) for p in (program, other)]
    assert medians[0] == pytest.approx(medians[1], rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_model_in_less_than_double_precision_is_tuned_by_differences(dtype: torch.dtype) -> None:
    """Whose steps are as large as what the model rounds to asks for."""
    den = logsnr.Denoiser(lambda x, t: DEN.model(x.double(), t.double()).to(dtype), SCH, "x0", dtype=dtype)
    program = logsnr.tune(den, X, 4, gauge="x0", solver="ddim", iterations=5, reference=END)
    assert program.provenance["derivatives"] == "differences"
    assert program.provenance["held-out median"] < 0.2 * program.provenance["start's median"]
