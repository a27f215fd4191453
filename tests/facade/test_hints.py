"""Errors that say what would be right, for what newcomers try first."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import logsnr
from logsnr import analysis, control
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


TO_NOISE = logsnr.solver("ddim").program(SCH, [0.9, 0.5])
TAKES_DENOISER: dict[str, Callable[[Any], Any]] = {
    "calibrate": lambda den: logsnr.calibrate(den, X),
    "check": lambda den: logsnr.check(den, X),
    "data_width": lambda den: logsnr.data_width(den, X),
    "known_error": lambda den: logsnr.known_error(den, X, TO_NOISE, logsnr.Wiener(0.0, 1.0)),
    "sample": lambda den: logsnr.sample(den, X, steps=2),
    "tune": lambda den: logsnr.tune(den, X),
    "Program.to_json": TO_NOISE.to_json,
    "Wiener.from_denoiser": lambda den: logsnr.Wiener.from_denoiser(den, (3,)),
    "compare": lambda den: analysis.compare(den, nfe=4, event_shape=(3,)),
    "log_likelihood": lambda den: analysis.log_likelihood(den, X),
    "log_prob": lambda den: analysis.log_prob(den, torch.stack([X, X]), TO_NOISE),
    "reference_flow": lambda den: analysis.reference_flow(den, X, SCH, 0.9, 0.5),
    "trajectory_grid": lambda den: analysis.trajectory_grid(den, X, "ddim", 3),
    "decode": lambda den: control.decode(den, X, steps=2),
    "encode": lambda den: control.encode(den, X, steps=2),
    "inpaint": lambda den: control.inpaint(den, X, torch.ones(2, 3), steps=2),
    "invert": lambda den: control.invert(den, X, steps=2),
    "pairs": lambda den: control.pairs(den, "nowhere", 4, 2, (3,), steps=2),
    "progressive_target": lambda den: control.progressive_target(den, X, 0.5),
    "consistency_pair": lambda den: control.consistency_pair(den, X, X, 0.5, 0.4),
    "score_gradient": lambda den: control.score_gradient(den, X, X, 0.5),
    "sdedit": lambda den: control.sdedit(den, X, t_start=0.5, steps=2),
    "step": lambda den: control.step(den, X, 0.9, 0.5),
    "translate": lambda den: control.translate(den, den, X, steps=2),
    "Reversible.sample": lambda den: control.Reversible().sample(den, X, steps=2),
}


@pytest.mark.parametrize("name", TAKES_DENOISER)
def test_what_is_no_denoiser(name: str) -> None:
    """Wherever one is wanted: a model is told what makes one of it, and anything else what it is."""
    for given, told in (
        (lambda x, t: x, r"function; logsnr\.Denoiser\(model, schedule, prediction\) makes one of a model$"),
        ("net", "str$"),
    ):
        with pytest.raises(TypeError, match=rf"^(den|source|teacher).* must be a logsnr\.Denoiser, not {told}"):
            TAKES_DENOISER[name](given)
