"""What the known answer of a call costs on other data, what it gains, and every wrong argument."""

import numpy as np
import pytest
import torch
from known_calls import EDM, F64, ROUND_OFF, VP, WIENER, counted, planned, start

import logsnr
from logsnr import analysis

OTHER = analysis.GaussianMixture(
    0.5 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0), dtype=F64), torch.full((8,), 0.05, dtype=F64)
)


def test_how_wrong_it_is() -> None:
    """On other data the first answer is off by the square of spread / sigma, and the estimate of what that does to the
    end is right within a factor of 5; it costs one evaluation, of a few starts."""
    x0 = OTHER.sample(4096, generator=torch.Generator().manual_seed(1))
    wiener, program = logsnr.Wiener.from_data(x0), planned("dpm-3m")
    model, den = counted(EDM, problem=OTHER)
    x = logsnr.start(EDM, (64, 16), seed=0, dtype=F64)
    error = logsnr.known_error(den, x[:8], program, wiener)
    assert model.asked == 1
    ends = [logsnr.sample(den, x, solver=one) for one in (program, program.with_known(EDM, wiener))]
    change = float((ends[0] - ends[1]).square().mean().sqrt()) / float(np.sqrt(wiener.variance.mean()))
    assert 0.2 * change < error.result < 5 * change < 0.02
    assert 1e-3 < error.answer < 0.03
    exact = logsnr.known_error(counted(EDM)[1], start(EDM), planned("dpm-3m"), WIENER)
    assert max(exact) < ROUND_OFF


def test_an_evaluation_more_for_the_rest() -> None:
    """On a 16-D mixture with EDM's range, 5 evaluations reach further when the first call is known."""
    x0 = OTHER.sample(4096, generator=torch.Generator().manual_seed(1))
    wiener, den = logsnr.Wiener.from_data(x0), OTHER.denoiser(EDM)
    x = logsnr.start(EDM, (64, 16), seed=0, dtype=F64)
    exact = logsnr.sample(den, x, solver="dpm-3m", steps=100)
    for name in ("ddim", "dpm-2m", "dpm-3m"):
        programs = planned(name, steps=5), planned(name).with_known(EDM, wiener)
        before, after = ((logsnr.sample(den, x, solver=one) - exact).norm() for one in programs)
        assert len(programs[0]) == len(programs[1]) == 5
        assert after < 0.95 * before


def test_what_does_not_fit() -> None:
    program = planned("dpm-2m")
    for calls in (0, 6, True, 1.0):
        with pytest.raises(ValueError, match="calls must be from 1 to 5, of 6 evaluations"):
            program.with_known(EDM, WIENER, calls)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"at call 2, t = 2\.33921, sigma / alpha is 2\.34, and the largest .* data 1:"
    ):
        planned("dpm-2m", steps=6).with_known(EDM, WIENER, 4)
    with pytest.raises(ValueError, match="least = -1"):
        program.with_known(EDM, WIENER, least=-1)
    with pytest.raises(TypeError, match=r"gaussian must be a logsnr\.Wiener, not float"):
        program.with_known(EDM, 0.3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="schedule"):
        program.with_known(WIENER, EDM)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="was made for another schedule"):
        program.with_known(VP, WIENER)
    with pytest.raises(ValueError, match=r"gaussian is of samples of shape \(5,\), and .* \(3,\)"):
        planned("wiener-2").with_known(EDM, logsnr.Wiener(np.zeros(5), 1.0))
    for name in ("auto", "dpm-fast", "bosh3"):
        with pytest.raises(ValueError, match=f"{name} has no program of its own on a grid"):
            logsnr.solver(name).with_known(WIENER)
    with pytest.raises(TypeError, match=r"gaussian must be a logsnr\.Wiener"):
        logsnr.solver("ddim").with_known(0.3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="calls = 0 must be an integer"):
        logsnr.solver("ddim").with_known(WIENER, 0)
    learned = logsnr.solver("ddpm", variance="learned").program(VP, logsnr.grid(VP, 6))
    with pytest.raises(ValueError, match="takes the width of its noise from the network"):
        learned.with_known(VP, WIENER)
    _, den = counted(EDM)
    with pytest.raises(ValueError, match="does not ask the model first"):
        logsnr.known_error(den, start(EDM), program.with_known(EDM, WIENER), WIENER)
    with pytest.raises(ValueError, match="variance of the Gaussian is 0"):
        logsnr.known_error(den, start(EDM), program, logsnr.Wiener(0.0, 0.0))
    with pytest.raises(TypeError, match="den must be"):
        logsnr.known_error(den.model, start(EDM), program, WIENER)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="program must be"):
        logsnr.known_error(den, start(EDM), "dpm-2m", WIENER)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"samples of shape \(3,\), not \(5,\)"):
        logsnr.known_error(den, start(EDM, 5), program, WIENER)
    with pytest.raises(ValueError, match="must be real"):
        logsnr.known_error(den, start(EDM).to(torch.complex128), program, WIENER)
    with pytest.raises(ValueError, match="calls that ask no model"):
        analysis.picard_sweeps(program.with_known(EDM, logsnr.Wiener(0.0, 1.0)), EDM, 1.0)
