"""The options of a layout mean in the analysis what they mean in `solve`."""

import pytest
import torch

import logsnr
from logsnr.analysis import Gaussian, sampler_moments, two_gaussians
from logsnr.solvers.catalogue.planning import plan_program

SCH = logsnr.VPLinear()
DATA = {"scalar": Gaussian(0.7, 0.25)}
F64 = torch.float64


def test_plan_program_is_what_solve_runs() -> None:
    """plan_program gives the program of solve for steps, nfe, grids and start-ups; a Program is its own plan."""
    den, x = Gaussian(0.0, 1.0).denoiser(SCH), torch.zeros(1, dtype=F64)
    for options in (
        {"steps": 5, "grid": "karras", "t_end": 0.1},
        {"nfe": 9, "startup": "single-step"},
        {"grid": [0.9, 0.5, 0.1]},
    ):
        program = plan_program("dpmpp-3m", SCH, **options)  # type: ignore[arg-type]
        assert program == logsnr.solve(den, x, solver="dpmpp-3m", **options).program
        assert plan_program(program, SCH) is program


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either steps or nfe"),
        ({"steps": 3, "nfe": 3}, "give either steps or nfe"),
        ({"nfe": 1}, "nfe = 1 is impossible: heun needs at least 2"),
        ({"grid": [0.9, 0.1], "steps": 3}, "an array of times is the whole grid"),
        ({"steps": 3, "grid": "log"}, "grid = 'log' is neither an array of times nor a known name"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    """Options that do not fit raise the ValueError of solve; so do options beside a program."""
    with pytest.raises(ValueError, match=message):
        sampler_moments("heun", DATA["scalar"], SCH, **options)  # type: ignore[arg-type]
    program = plan_program("heun", SCH, steps=2)
    with pytest.raises(ValueError, match="a program is the whole grid"):
        sampler_moments(program, DATA["scalar"], SCH, steps=2)
    with pytest.raises(TypeError, match=r"must be a Gaussian of logsnr\.analysis, not GaussianMixture"):
        sampler_moments("ddim", two_gaussians(), SCH, steps=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chooses its own steps"):
        sampler_moments("bosh3", DATA["scalar"], SCH, steps=2)
