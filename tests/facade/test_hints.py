"""Errors that say what would be right, for what newcomers try first."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import logsnr
from logsnr.bench.tuning import load_denoiser

SCH = logsnr.VPLinear()
X = logsnr.start(SCH, (2, 3), seed=0)


class Mine:
    """A planner that is not made yet."""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dpm++2m", "did you mean 'dpmpp-2m'"),
        ("Euler", "that is solver='ddim'; 'euler' is another one here"),
        ("DDIM", "that is solver='ddim'"),
        (Mine, "give an instance, as Mine()"),
        ("plan.json", "logsnr.Program.from_json"),
        ('{"version": 1}', "logsnr.Program.from_json"),
        ("qqq", "choose from ddim, .* names\\)$"),
    ],
)
def test_solvers_that_do_not_exist(name: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told if name == "qqq" else re.escape(told)) as error:
        logsnr.solver(name)
    assert len(str(error.value)) < 420


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rho": 5.0}, 'rho is grid_options={"rho": ...} here'),
        ({"sigma_max": 80}, "an end of the schedule, EDM(sigma_min, sigma_max)"),
        ({"guidance_scale": 3.0}, "guidance=logsnr.Guidance"),
    ],
)
def test_arguments_of_other_libraries(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, SCH), X, solver="heun", steps=2, **options)


@pytest.mark.parametrize("callback", [lambda node, t: None, lambda a, b, c, d, e: None])
def test_callbacks_of_other_arguments(callback: Callable[..., Any]) -> None:
    """Before the first call."""
    with pytest.raises(TypeError, match=re.escape("must take callback(node, t, state), or")):
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, SCH), X, solver="ddim", steps=2, callback=callback)


def test_names_of_a_subpackage() -> None:
    for name, place in (("inpaint", "control"), ("compare", "analysis"), ("Adams", "solvers")):
        with pytest.raises(AttributeError, match=f"that is logsnr.{place}.{name}$"):
            getattr(logsnr, name)
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        getattr(logsnr, "nothing")  # noqa: B009


def test_a_file_and_a_number_in_the_place_of_a_program_and_a_grid() -> None:
    with pytest.raises(ValueError, match=r"'p\.json' looks like a file: give its text"):
        logsnr.Program.from_json("p.json")
    with pytest.raises(ValueError, match=re.escape("logsnr.grid(schedule, 6) makes one")):
        logsnr.solver("ddim").program(SCH, 6)


def test_errors_of_a_model_say_how_it_was_called() -> None:
    net = torch.nn.Linear(3, 3)
    for x, model, conditions in (
        (X, net, {}),
        (X.double(), lambda x, t: net(x), {}),
        (X, lambda x, t: x, {"labels": torch.ones(2)}),
    ):
        den = logsnr.Denoiser(model, SCH, conditions=conditions)
        with pytest.raises((TypeError, RuntimeError)) as error:
            logsnr.sample(den, x, solver="ddim", steps=2)
        told = "x, t, labels=..." if conditions else "x, t"
        dtype = str(x.dtype).removeprefix("torch.")
        assert f"called as model({told}) with x {dtype} (2, 3) and t {dtype} (2,)" in error.value.__notes__[0]


def test_a_function_in_a_file_is_shown_fp32(tmp_path: Path) -> None:
    """References and fits run in float64, which a network that a function wraps could not take."""
    file = tmp_path / "net.py"
    file.write_text(
        "import torch, logsnr\nnet = torch.nn.Linear(3, 3)\n"
        "den = logsnr.Denoiser(lambda x, t: net(x), logsnr.VPLinear())\n"
    )
    den = load_denoiser(f"{file}:den")
    assert logsnr.sample(den, X.double(), solver="ddim", steps=2).dtype == torch.float64
