"""The width of data, read off one call of a denoiser."""

import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers.tuning.stored import FAMILY

F64 = torch.float64


@pytest.mark.parametrize("sch", [logsnr.EDM(), logsnr.VPLinear(), logsnr.FlowMatching()], ids=repr)
@pytest.mark.parametrize("width", [0.5, 3.0, 20.0])
def test_of_gaussians(sch: logsnr.Schedule, width: float) -> None:
    """Of 64 noises, to a third of it: above the noise's own spread, and whatever the range."""
    spectrum = width * torch.arange(1, 33, dtype=F64) ** -1.0
    den = GaussianMixture(torch.zeros(1, 32, dtype=F64) + 0.3, (spectrum**2)[None]).denoiser(sch)
    found = logsnr.data_width(den, logsnr.start(sch, (64, 32), seed=0, dtype=F64))
    assert 0.75 * width < found < 1.35 * width


@pytest.mark.parametrize(
    ("sch", "width", "calls"),
    [
        (logsnr.EDM(), 1.0, 1),
        (logsnr.EDM(), 20.0, 2),
        (logsnr.EDM(sigma_max=9.0), 1.0, 1),
        (logsnr.EDM(sigma_max=9.0), 20.0, 1),
    ],
)
def test_no_call_is_made_twice(sch: logsnr.Schedule, width: float, calls: int) -> None:
    """Data that are wide are asked of again at more noise, if the schedule has more."""
    asked = list[float]()

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(float(t[0]))
        return width**2 / (width**2 + t[:, None] ** 2) * x

    logsnr.data_width(logsnr.Denoiser(model, sch, "x0"), logsnr.start(sch, (64, 4), seed=0, dtype=F64))
    assert len(set(asked)) == len(asked) == calls


def test_it_chooses_the_table() -> None:
    sch = logsnr.EDM()
    den = GaussianMixture(torch.zeros(1, 64, dtype=F64), torch.full((1, 64), 0.01, dtype=F64)).denoiser(sch)
    x = logsnr.start(sch, (64, 64), seed=0, dtype=F64)
    wide = GaussianMixture(torch.tensor([[-8.0, *[0.0] * 63], [8.0, *[0.0] * 63]]), torch.full((2, 64), 0.1))
    for denoiser, kind in ((den, "narrow"), (wide.denoiser(sch), "groups")):
        program = logsnr.solve(denoiser, x[:2], nfe=8, width=logsnr.data_width(denoiser, x)).program
        assert program is not None
        assert program.provenance[FAMILY] == kind


def test_what_is_refused() -> None:
    sch = logsnr.EDM()
    den = GaussianMixture(torch.zeros(1, 2), torch.ones(1, 2)).denoiser(sch)
    with pytest.raises(ValueError, match="at least 8"):
        logsnr.data_width(den, torch.ones(4, 2))
    with pytest.raises(TypeError, match=r"logsnr\.Denoiser, not str"):
        logsnr.data_width("den", torch.ones(8, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        logsnr.data_width(logsnr.Denoiser(lambda x, t: x * torch.nan, sch, "x0"), torch.ones(8, 2))
