"""What the doctor finds: subjects are what their libraries mean, known faults are measured, and mistakes are told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import logsnr
from logsnr.bench.doctor.sheet import WIDTH, doctor, sheet
from logsnr.cli import app
from logsnr.integrations.doctor.doctor import (
    Finding,
    infinite_start,
    last_step,
    repeated,
)
from logsnr.integrations.doctor.orders import Measured
from logsnr.integrations.doctor.subjects import STABLE_DIFFUSION, Subject, of_config, parse

MULTISTEP = {"_class_name": "DPMSolverMultistepScheduler", **STABLE_DIFFUSION}
KARRAS = {**MULTISTEP, "use_karras_sigmas": True}
TO_SIGMA_MIN = {**KARRAS, "final_sigmas_type": "sigma_min"}

COMFYUI = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0 exp_heun_2_x0_sde dpm_2
    dpm_2_ancestral lms dpm_fast dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m
    dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu
    ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral
    res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver
    sa_solver_pece ddim uni_pc uni_pc_bh2
"""  # its list, without dpm_adaptive


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
        ("dpm_adaptive karras", {}, "dpm_adaptive chooses its steps as it goes"),
        ("DPM adaptive Karras", {}, "dpm_adaptive chooses its steps as it goes"),
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


def test_what_is_better_reaches_the_least_sigma_that_there_is() -> None:
    """20 steps "linspace" end at sigma = 0.2 before 0; what is put beside them goes on to the table's 0.03."""
    measured = Measured(of_config(MULTISTEP))
    assert measured.subject.levels()[-2] > 0.2
    assert measured.choices[0].solver == "auto"
    assert measured.choices[0].error < measured.own / 10  # a root mean square, most of it of a path between two modes


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


@pytest.mark.parametrize("name", COMFYUI.split())
def test_all_names_of_comfyui_are_known(name: str) -> None:
    found = parse(f"{name} karras", steps=6)
    assert (found.library, found.grid) == ("ComfyUI", "karras")
    assert len(Measured(found).program) >= 6


@pytest.mark.parametrize("name", ["exp_heun_2_x0_sde", "res_multistep_ancestral_cfg_pp"])
def test_formulas_that_are_comfyuis_alone(name: str) -> None:
    """Weak order 1: all that multistep RES has with noise, and what exponential Heun is declared to have at least."""
    subject = parse(f"{name} karras", steps=8)
    measured = Measured(subject)
    assert measured.stochastic
    method = subject.shipped
    assert measured.rungs[0].found.order > method.order - 0.3
    assert measured.choices[0].error < measured.own


def test_it_is_a_command() -> None:
    assert "--measure" in CliRunner().invoke(app, ["doctor", "--help"], terminal_width=200).output


def test_a_subject_is_immutable() -> None:
    with pytest.raises(AttributeError):
        parse("euler").steps = 3  # type: ignore[misc]
    assert isinstance(parse("euler"), Subject)
