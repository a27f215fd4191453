"""The bound of DM-NonUniform: its weights, its closed form for DDIM, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr import analysis as A
from logsnr.analysis.bound_grid import answer_weights

EDM, VP = logsnr.EDM(), logsnr.VPLinear()


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "deis-3", "heun"])
def test_weights_are_the_derivatives_of_a_run(solver: str) -> None:
    """Against automatic differentiation through a model whose answers are numbers of their own."""
    program = logsnr.solver(solver).program(VP, logsnr.grid(VP, 4))
    answers = torch.zeros(len(program), dtype=torch.float64, requires_grad=True)
    calls = iter(answers)

    def model(x: Any, t: float) -> Any:
        x0 = next(calls)
        return x0, (x - VP.alpha(t) * x0) / VP.sigma(t)

    program.interpret(torch.ones((), dtype=torch.float64), model).backward()
    assert answers.grad is not None
    np.testing.assert_allclose(answer_weights(program, VP), answers.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_ddim_has_the_closed_form() -> None:
    """Its bound is a sum of e^h - 1 where alpha = 1 and power = 1: least where lam is uniform."""
    found = A.bound_grid("ddim", 6, EDM)
    h = np.log(80 / 0.002) / 6
    assert found.error == pytest.approx(0.002 * 6 * np.expm1(h), rel=1e-6)
    np.testing.assert_allclose(np.diff(np.log(found.times)), -h, rtol=0.01)


@pytest.mark.parametrize(("solver", "power"), sampled(["dpmpp-2m", "deis-3"], [1.0, 2.0], every=2))
def test_no_name_has_a_smaller_bound(solver: str, power: float) -> None:
    found = A.bound_grid(solver, 6, VP, power=power)
    assert found.error <= min(found.before.values())
    eta = VP.sigma(found.times[:-1]) ** power / VP.alpha(found.times[:-1])
    assert found.error == pytest.approx((np.abs(answer_weights(found.program, VP)) * eta).sum())


def test_bad_requests() -> None:
    for wrong in ("1", True, float("nan")):
        with pytest.raises(ValueError, match=r"power = .* must be a number"):
            A.bound_grid("ddim", 6, VP, power=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nfe must be a whole number"):
        A.bound_grid("ddim", 0, VP)
