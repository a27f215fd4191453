"""Data to its latent and back."""

import pytest
import torch

import logsnr
from logsnr import analysis
from logsnr.control import decode, encode

SCH = logsnr.VPLinear()
DATA = analysis.Gaussian(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.3, 1.0, 2.0]))
X = DATA.sample_at(SCH, SCH.t_end, 4, generator=torch.Generator().manual_seed(0))


def test_the_latent_is_the_end_of_the_flow() -> None:
    den = DATA.denoiser(SCH)
    latent = encode(den, X, solver="krogstad", steps=60)
    torch.testing.assert_close(latent, DATA.flow(X, SCH, SCH.t_end, SCH.t_start), rtol=0, atol=1e-5)
    part = encode(den, X, solver="krogstad", steps=60, t_start=0.4)
    torch.testing.assert_close(part, DATA.flow(X, SCH, SCH.t_end, 0.4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_there_and_back(prediction: str) -> None:
    den = DATA.denoiser(SCH, prediction)
    for options, tol in (
        ({"solver": "dpmpp-3m", "steps": 200}, 2e-2),
        ({"solver": "dopri5", "rtol": 1e-7, "atol": 1e-7}, 1e-5),
    ):
        back = decode(den, encode(den, X.double(), **options), **options)
        torch.testing.assert_close(back, X.double(), rtol=0, atol=tol)


def test_from_sigma_0() -> None:
    """Clean data, where the head says what it needs; a velocity does."""
    flow = logsnr.FlowMatching()
    den = DATA.denoiser(flow, "velocity")
    x0 = DATA.sample(4, generator=torch.Generator().manual_seed(0))
    back = decode(den, encode(den, x0, solver="heun", steps=100), solver="heun", steps=100)
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-2)


def test_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="adds noise"):
        encode(DATA.denoiser(SCH), X, solver="ddpm", steps=4)
    with pytest.raises(ValueError, match="adds noise"):
        decode(DATA.denoiser(SCH), X, solver="ddpm", steps=4)


def test_what_has_no_way_back_is_told() -> None:
    program = logsnr.solver("ddim").program(SCH, logsnr.grid(SCH, 3))
    with pytest.raises(ValueError, match="a program has its own direction: name its solver here"):
        encode(DATA.denoiser(SCH), X, solver=program)
    with pytest.raises(ValueError, match="t_start must be one number for all samples that are encoded"):
        encode(DATA.denoiser(SCH), X, solver="ddim", steps=3, t_start=torch.full((4,), 0.5))
