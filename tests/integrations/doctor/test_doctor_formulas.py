"""Known faults of formulas that the field ships: the orders that they are said to lose are measured."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import logsnr
from logsnr.analysis import convergence_order, two_gaussians, weak_order
from logsnr.integrations.doctor.doctor import (
    KINDS,
    SEVERITIES,
    Finding,
    examine,
)
from logsnr.integrations.doctor.formulas import FORMULAS, WRONG_SIGN, mixed_times
from logsnr.integrations.doctor.orders import Measured
from logsnr.integrations.doctor.subjects import STABLE_DIFFUSION, of_config, parse

MULTISTEP = {"_class_name": "DPMSolverMultistepScheduler", **STABLE_DIFFUSION}
KARRAS = {**MULTISTEP, "use_karras_sigmas": True}
TO_SIGMA_MIN = {**KARRAS, "final_sigmas_type": "sigma_min"}


def of_kind(findings: tuple[Finding, ...], kind: str) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]


@pytest.mark.parametrize("name", FORMULAS)
def test_faulty_formulas_have_a_lower_order(name: str) -> None:
    known, _, formula = FORMULAS[name]
    found = convergence_order(formula, two_gaussians(), logsnr.EDM(), max_nfe=400)
    assert found.order == pytest.approx(formula.order, abs=0.2)
    assert logsnr.solver(known).order == 2 * formula.order


def test_equal_weights_are_those_of_adams_and_bashforth() -> None:
    """ipndm_v of stable-diffusion.cpp, beside a loop; but its second step, which knows of steps that differ."""
    levels = np.array([10.0, 6.0, 3.5, 2.0, 1.2, 0.5, 0.1])
    model = lambda x, t: (x - t * np.sin(x), np.sin(x))  # noqa: E731
    x, slopes = np.array([8.0, -3.0]), list[np.ndarray]()
    for s, t in pairwise(levels):
        slopes.append(np.sin(x))
        weights = ([1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])
        found = weights[min(len(slopes), 4) - 1]
        x = x + (t - s) * sum(w * d for w, d in zip(found, slopes[::-1], strict=False))
    program = FORMULAS["sd.cpp ipndm_v"].form.program(logsnr.EDM(0.1, 10.0), levels, startup="ramp")
    np.testing.assert_allclose(program.interpret(np.array([8.0, -3.0]), model), x, rtol=1e-12)


def test_one_wrong_time_costs_all_orders() -> None:
    """REABSampler of azula: its loop, with the integral by many points, and order 1 where the right formula has 3."""
    right, form = mixed_times(3)
    levels = np.geomspace(5.0, 0.2, 7)
    model = lambda x, t: (np.tanh(x), (x - np.tanh(x)) / t)  # noqa: E731
    x, past, u = np.array([3.0]), list[np.ndarray](), np.log(levels)
    for i in range(6):
        size = np.hypot(1, levels[i])
        past.append((x / size**2 - np.tanh(x)) * size / levels[i])
        n = min(len(past), 3)
        fine = np.linspace(u[i], u[i + 1], 4001)
        nodes = u[i + 1 - n : i + 1]
        basis = [np.prod([(fine - a) / (b - a) for a in nodes if a != b], axis=0) for b in nodes]
        rate = np.exp(fine) / (1 + np.exp(2 * fine))
        weights = [np.trapezoid(rate * (part * np.ones_like(fine)), fine) for part in basis]
        integral = sum(w * f for w, f in zip(weights, past[-n:], strict=True))
        x = np.hypot(1, levels[i + 1]) / size * x + np.hypot(1, levels[i]) * integral
    program = form.program(logsnr.EDM(0.2, 5.0), levels)
    np.testing.assert_allclose(program.interpret(np.array([3.0]), model), x, rtol=1e-6)
    for method, order in ((form, 1), (right, 3)):
        assert convergence_order(method, two_gaussians(), logsnr.EDM(), max_nfe=500).order == pytest.approx(
            order, abs=0.2
        )
    assert [f.kind for f in examine("REAB 3 karras", steps=8) if f.severity == "warning"].count("known fault") == 1


def test_models_of_comfyui_are_told_entries_of_their_table() -> None:
    """The nearest in log sigma; those of A1111 any time."""
    subject = parse("dpmpp_2m karras", steps=6)
    assert subject.asked is not None
    table = logsnr.Discrete(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    entries = np.sort(np.append(table.sigma(np.arange(1000.0)) / table.alpha(np.arange(1000.0)), [0.0]))
    told, own = subject.asked(6), subject.levels(6)[:-1]
    assert np.isin(np.round(told, 9), np.round(entries, 9)).all()
    assert 0 < np.abs(np.log(told / own)).max() < 0.01
    assert parse("DPM++ 2M Karras").asked is None


def test_averaged_steps_are_2m_where_steps_are_equal() -> None:
    """On a uniform grid in lam the mean of two steps is the step."""
    sch = logsnr.EDM(0.1, 10.0)
    grid = logsnr.grid(sch, 6)
    right = logsnr.solver("dpmpp-2m", compat=True).program(sch, grid, startup="ramp")
    x, model = np.array([3.0]), lambda x, t: (np.tanh(x), (x - np.tanh(x)) / t)
    mine = FORMULAS["dpm++2mv2"][2].program(sch, grid)
    np.testing.assert_allclose(mine.interpret(x, model), right.interpret(x, model), rtol=1e-12)


def test_the_sign_of_the_sde_solver_costs_an_order() -> None:
    sch = logsnr.VPLinear()
    assert weak_order(WRONG_SIGN, None, sch, max_nfe=600).order == pytest.approx(1, abs=0.15)
    assert weak_order("sde-dpmpp-3m", None, sch, max_nfe=600).order == pytest.approx(2, abs=0.15)


def test_half_a_second_difference_is_where_3m_loses_its_order() -> None:
    found = examine(of_config({**TO_SIGMA_MIN, "solver_order": 3}))
    measured = of_kind(found, "order")
    assert measured[1].text.startswith("3.")
    assert measured[2].severity == "warning"
    assert measured[2].text.startswith("2.")
    assert any("half" in finding.text for finding in of_kind(found, "known fault"))
    assert [f.severity for f in of_kind(found, "nan")] == ["danger"]  # sigma_min stands twice
    assert [f.kind for f in found] == sorted((f.kind for f in found), key=KINDS.index)
    assert {f.severity for f in found} <= set(SEVERITIES)


def test_the_right_formula_loses_nothing() -> None:
    """The mutant of the above: with exact weights no rung before the grid is marked."""
    subject = replace(of_config({**TO_SIGMA_MIN, "solver_order": 3}), compat=False)
    assert Measured(subject).rungs[0].found.order == pytest.approx(3, abs=0.1)
