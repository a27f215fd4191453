"""What the doctor measures of samplers of other libraries, and of loops that stand for them."""

import math
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from logsnr.bench.doctor import foreign, functions
from logsnr.bench.doctor.foreign import check_foreign
from logsnr.bench.doctor.functions import _Brownian, _on
from logsnr.bench.doctor.ways import Way, measured, smooth
from logsnr.bench.peers.samplers import missing
from logsnr.integrations.doctor import Finding
from logsnr.integrations.doctor.subjects import STABLE_DIFFUSION, Subject, of_config, parse

MULTISTEP = {"_class_name": "DPMSolverMultistepScheduler", **STABLE_DIFFUSION}
KARRAS = {**MULTISTEP, "use_karras_sigmas": True}
TO_SIGMA_MIN = {**KARRAS, "final_sigmas_type": "sigma_min"}


def test_measure_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, told in (("sd.cpp ipndm_v", "not stable-diffusion.cpp"), ("dpm-3m karras", "not logsnr")):
        with pytest.raises(ValueError, match=f"measure runs diffusers, k-diffusion and azula, {told}"):
            check_foreign(parse(name))
    for subject, package in ((of_config(KARRAS), "diffusers"), (parse("REAB 3"), "azula")):
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"measure needs {package}"):
            check_foreign(subject)
    monkeypatch.setattr(foreign, "missing", lambda package: None)
    monkeypatch.setattr(functions, "k_diffusion_sampling", lambda: SimpleNamespace(sample_euler=None))
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
    return foreign.foreign(subject)


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
