"""What the doctor finds: subjects are what their libraries mean, known faults are measured, and mistakes are told."""

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import logsnr
from logsnr.analysis import convergence_order, two_gaussians, weak_order
from logsnr.bench import doctor_foreign, doctor_functions
from logsnr.bench.doctor import WIDTH, doctor, sheet
from logsnr.bench.doctor_foreign import check_foreign
from logsnr.bench.doctor_functions import _Brownian, _on
from logsnr.bench.doctor_ways import Way, measured, smooth
from logsnr.bench.peer_samplers import missing
from logsnr.cli import app
from logsnr.integrations.doctor import (
    KINDS,
    SEVERITIES,
    Finding,
    examine,
    infinite_start,
    last_step,
    repeated,
)
from logsnr.integrations.doctor_formulas import FORMULAS, WRONG_SIGN, mixed_times
from logsnr.integrations.doctor_orders import Measured
from logsnr.integrations.doctor_subjects import STABLE_DIFFUSION, Subject, of_config, parse

MULTISTEP = {"_class_name": "DPMSolverMultistepScheduler", **STABLE_DIFFUSION}
KARRAS = {**MULTISTEP, "use_karras_sigmas": True}
TO_SIGMA_MIN = {**KARRAS, "final_sigmas_type": "sigma_min"}


def of_kind(findings: tuple[Finding, ...], kind: str) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]


@pytest.mark.parametrize(
    ("text", "solver", "compat", "grid"),
    [
        ("dpmpp_3m_sde karras", "sde-dpmpp-3m", True, "karras"),
        ("DPM++ 2M Karras", "dpmpp-2m", True, "karras"),
        ("uni_pc_bh2 simple", "unipc-3", "bh2", "time"),
        ("dpmpp_2m_sde_heun exponential", "sde-dpmpp-2m", False, "logsnr"),
        ("dpm-3m karras", "dpm-3m", False, "karras"),
        ("Euler a", "euler-a", False, "time"),
        ("dpmpp_2m_sde_gpu karras", "sde-dpmpp-2m", True, "karras"),
        ("dpmpp_2m_cfg_pp karras", "dpmpp-2m", True, "karras"),
        ("sd.cpp ipndm_v karras", "deis-rho-4", False, "karras"),
        ("xEABSampler 3 karras", "dpmpp-3m", False, "karras"),
        ("zAB", "deis-rho-2", False, "time"),
    ],
)
def test_names_of_other_libraries(text: str, solver: str, compat: Any, grid: str) -> None:
    found = parse(text, steps=6)
    assert (found.solver, found.compat) == (solver, compat)
    table = logsnr.Discrete(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    times = logsnr.grid(table, 6, grid)
    np.testing.assert_allclose(found.levels(), table.sigma(times) / table.alpha(times), rtol=1e-12)


def test_karras_sigmas_of_a_config_are_the_formula() -> None:
    """(sigma_max^(1/7) + i / 9 (sigma_min^(1/7) - sigma_max^(1/7)))^7, then 0."""
    levels = of_config(KARRAS, 10).levels()
    high, low = levels[0] ** (1 / 7), levels[-2] ** (1 / 7)
    np.testing.assert_allclose(levels[:-1], (high + np.arange(10) / 9 * (low - high)) ** 7, rtol=1e-12)
    assert levels[-1] == 0


@pytest.mark.parametrize(
    ("config", "solver", "compat"),
    [
        (MULTISTEP, "dpmpp-2m", True),
        ({**MULTISTEP, "solver_type": "heun"}, "dpmpp-2m", False),
        ({**MULTISTEP, "solver_order": 3}, "dpmpp-3m", True),
        ({**MULTISTEP, "solver_order": 1}, "ddim", False),
        ({**MULTISTEP, "algorithm_type": "dpmsolver", "solver_order": 3}, "dpm-3m", False),
        ({**STABLE_DIFFUSION, "_class_name": "UniPCMultistepScheduler"}, "unipc-2", "bh2"),
        ({**STABLE_DIFFUSION, "_class_name": "EulerDiscreteScheduler"}, "ddim", False),
        ({**STABLE_DIFFUSION, "_class_name": "SASolverScheduler", "predictor_order": 3}, "sa-3", False),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "euler", False),
    ],
)
def test_classes_of_diffusers(config: dict[str, Any], solver: str, compat: Any) -> None:
    found = of_config(config, 5)
    assert (found.solver, found.compat) == (solver, compat)
    assert len(found.levels()) == 6
    assert found.shipped


def test_a_folder_is_its_config(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(KARRAS))
    assert parse(str(tmp_path)).name == of_config(KARRAS).name


@pytest.mark.parametrize(
    ("text", "given", "told"),
    [
        ("dpmp_2m", {}, "did you mean 'dpmpp_2m'"),
        ("euler", {"scheduler": "karas"}, "scheduler = 'karas' is unknown; did you mean 'karras'"),
        ("", {}, "say what to look at"),
        ("euler", {"sigmas": "14, x"}, "sigmas must be numbers"),
        ("euler", {"sigmas": "1, 2"}, "finite numbers that decrease"),
        ("euler", {"sigmas": "1, 0, 0"}, "stand once, at the end"),
        ("euler", {"steps": 0}, "steps must be a number from 1 to 1000, not 0"),
    ],
)
def test_mistakes(text: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text, **given)


def test_other_configs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'EulerDiscreteScheduler'"):
        of_config({"_class_name": "EulerDiscretScheduler"})
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a config"):
        parse(str(tmp_path / "a.json"))
    with pytest.raises(OSError, match="nothing"):
        parse(str(tmp_path / "nothing.json"))


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
        assert convergence_order(method, two_gaussians(), logsnr.EDM(), max_nfe=900).order == pytest.approx(
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


def test_what_is_better_reaches_the_least_sigma_that_there_is() -> None:
    """20 steps "linspace" end at sigma = 0.2 before 0; what is put beside them goes on to the table's 0.03."""
    measured = Measured(of_config(MULTISTEP))
    assert measured.subject.levels()[-2] > 0.2
    assert measured.choices[0].solver == "auto"
    assert measured.choices[0].error < measured.own / 20


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


@pytest.mark.parametrize(
    ("config", "severity"),
    [
        ({**TO_SIGMA_MIN, "solver_order": 3}, "danger"),
        ({**TO_SIGMA_MIN, "solver_type": "heun"}, "danger"),
        (TO_SIGMA_MIN, "warning"),
        (KARRAS, None),
        ({**MULTISTEP, "final_sigmas_type": "sigma_min"}, None),
    ],
)
def test_steps_of_no_length(config: dict[str, Any], severity: str | None) -> None:
    subject = of_config(config)
    assert [f.severity for f in repeated(subject, Measured(subject))] == [severity] * (severity is not None)


@pytest.mark.parametrize(("head", "count"), [("epsilon", 1), ("v_prediction", 0)])
def test_the_last_step_and_zero_terminal_snr(head: str, count: int) -> None:
    own = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    subject = of_config({**STABLE_DIFFUSION, **own, "prediction_type": head}, 10)
    measured = Measured(subject)
    assert len(list(infinite_start(subject, measured))) == count
    assert "first order, whatever the solver" in next(last_step(subject, measured)).text


def test_truncated_timesteps_set_a_floor() -> None:
    """Truncated whole timesteps cost more than the solver's own error at 80 steps; the exact ones nothing."""
    own = {"_class_name": "UniPCMultistepScheduler", "use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}
    measured = Measured(of_config({**STABLE_DIFFUSION, **own}, 80))
    assert measured.told_otherwise is not None
    assert measured.told_otherwise > 5 * measured.own
    exact = replace(measured.subject, asked=lambda n: measured.subject.levels(n)[:-1])
    assert Measured(exact).told_otherwise == pytest.approx(measured.own, rel=1e-9)


def test_what_to_take_instead_runs_and_is_better() -> None:
    subject = parse("euler karras", steps=10)
    measured = Measured(subject)
    assert measured.choices[0].solver == "auto"
    assert all(choice.nfe <= len(measured.program) for choice in measured.choices)
    assert measured.choices[0].error < measured.own / 5


def test_the_sheet_is_80_columns_wide(capsys: pytest.CaptureFixture[str]) -> None:
    doctor("dpmpp_2m", scheduler="karras", steps=8)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= WIDTH
    for part in ("SOLVER", "ORDER", "LAST STEP", "INSTEAD", "logsnr.sample(den, x, nfe=8)"):
        assert part in said
    assert sheet([Finding("order", "danger", "A.\ncode")]) == "ORDER\n !! A.\n      code"


def test_it_is_a_command() -> None:
    assert "--measure" in CliRunner().invoke(app, ["doctor", "--help"], terminal_width=200).output


def test_measure_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, told in (("sd.cpp ipndm_v", "not stable-diffusion.cpp"), ("dpm-3m karras", "not logsnr")):
        with pytest.raises(ValueError, match=f"measure runs diffusers, k-diffusion and azula, {told}"):
            check_foreign(parse(name))
    for subject, package in ((of_config(KARRAS), "diffusers"), (parse("REAB 3"), "azula")):
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"measure needs {package}"):
            check_foreign(subject)
    monkeypatch.setattr(doctor_foreign, "missing", lambda package: None)
    monkeypatch.setattr(doctor_functions, "k_diffusion_sampling", lambda: SimpleNamespace(sample_euler=None))
    check_foreign(parse("Euler Karras"))
    with pytest.raises(ValueError, match="k-diffusion, which has no 'ipndm'"):
        check_foreign(parse("ipndm karras"))


@pytest.mark.parametrize(("broken", "severity"), [(False, "good"), (True, "danger")])
def test_what_is_measured_of_a_loop(broken: bool, severity: str) -> None:
    """Euler's method has order 1, and NaN is found."""

    def euler(model: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        for s, t in pairwise(sigmas):
            x = x + (t - s) * (x - model(x, s)) / s
        return x * (math.nan if broken and len(sigmas) > 100 else 1)

    found = measured(Way("euler", _on(smooth, euler), 1))
    assert found.severity == severity
    assert ("NaN" if broken else "order 1.0") in found.text


def test_a_loop_that_stops_is_a_finding() -> None:
    def stops(model: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    assert measured(Way("it", _on(smooth, stops), 1)).text == "it: it stops with an error, AssertionError."


def test_increments_of_one_path_overlap() -> None:
    """Over [3, 2] and [3, 1]: each of variance 1, correlated by the root of the part that they share."""
    brownian = _Brownian(torch.zeros(40_000, dtype=torch.float64))
    first, both, other = brownian(3.0, 2.0), brownian(3.0, 1.0), brownian(1.0, 0.0)
    cov = torch.stack([first, both, other]).cov()
    expected = torch.eye(3, dtype=torch.float64)
    expected[0, 1] = expected[1, 0] = 0.5**0.5
    torch.testing.assert_close(cov, expected, atol=0.03, rtol=0)


def _foreign(subject: Subject, *packages: str) -> list[Finding]:
    for package in packages:
        if why := missing(package):
            pytest.skip(why)
    return doctor_foreign.foreign(subject)


@pytest.mark.slow
def test_measured_faults_of_diffusers() -> None:
    """NaN by a repeated sigma, order 2 of 3M, fp32 coefficients that make DEIS and SA-Solver worse with more steps,
    order 1 of 3M with noise; and what half precision, time and torch.compile make of a step."""
    configured, *_ = _foreign(of_config({**TO_SIGMA_MIN, "solver_order": 3}), "diffusers")
    assert (configured.severity, "NaN" in configured.text) == ("danger", True)
    _, formula, _, half, time, compiled = _foreign(of_config({**KARRAS, "solver_order": 3}), "diffusers")
    assert "order 2." in formula.text
    assert (half.severity, time.severity, compiled.severity) == ("warning", "note", "warning")
    own = {**STABLE_DIFFUSION, "_class_name": "DEISMultistepScheduler", "solver_order": 3}
    _, wide, narrow, *_ = _foreign(of_config(own), "diffusers")
    assert (wide.severity, narrow.severity) == ("good", "danger")
    own = {**STABLE_DIFFUSION, "_class_name": "SASolverScheduler", "predictor_order": 3, "corrector_order": 4}
    _, wide, narrow, *_ = _foreign(of_config(own), "diffusers")
    assert (wide.severity, narrow.severity) == ("good", "danger")
    _, noisy, *_ = _foreign(
        of_config({**MULTISTEP, "solver_order": 3, "algorithm_type": "sde-dpmsolver++"}), "diffusers"
    )
    assert noisy.severity == "warning"


@pytest.mark.slow
def test_measured_faults_of_k_diffusion_and_azula() -> None:
    """3M without noise has order 2, and what ends at sigma = 0 a floor; REAB has order 1."""
    _, _, wide, narrow = _foreign(parse("dpmpp_3m_sde karras"), "k-diffusion")
    assert "order 2." in wide.text
    assert {wide.severity, narrow.severity} == {"warning"}
    run, wide, _ = _foreign(parse("DPM++ 2M Karras"), "k-diffusion")
    assert (run.severity, wide.severity) == ("warning", "good")
    _, formula = _foreign(parse("REAB 3"), "azula")
    assert "order 1." in formula.text
    assert _foreign(parse("xEAB 3"), "azula")[1].severity == "good"


def test_a_subject_is_immutable() -> None:
    with pytest.raises(AttributeError):
        parse("euler").steps = 3  # type: ignore[misc]
    assert isinstance(parse("euler"), Subject)
