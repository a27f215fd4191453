"""Random settings end in a finite answer or in a clear refusal; `python tests/random_settings.py` tries more."""

from collections.abc import Callable
from typing import Any

import pytest
import random_settings as settings
import torch
import typer
from typer.testing import CliRunner

from logsnr.solvers.finite import NonFiniteError
from logsnr.solvers.runs.solution import Solution


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("first", "count"), [(0, 150), *(pytest.param(n, 250, marks=pytest.mark.slow) for n in (150, 400, 650))]
)
def test_random_settings_run_or_are_refused(first: int, count: int) -> None:
    """No foreign exception, no infinity, no wrong shape; and most of them run."""
    ended = {n: settings.fault(n) for n in range(first, first + count)}
    assert {n: what for n, what in ended.items() if what not in ("ran", "refused")} == {}
    assert sum(what == "ran" for what in ended.values()) > 0.6 * count


def fail(error: Exception) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def answer(den: Any, x: torch.Tensor) -> torch.Tensor:
        raise error

    return answer


def after_a_call(den: Any, x: torch.Tensor) -> torch.Tensor:
    den.model(x, x)
    raise ValueError("too late")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (fail(ZeroDivisionError("by 0")), "ZeroDivisionError: by 0"),
        (fail(NonFiniteError("at call 3")), "NonFiniteError: at call 3"),
        (after_a_call, "ValueError after 1 calls: too late"),
        (lambda den, x: x[None], "of shape (1, 4, "),
        (lambda den, x: x.to(torch.complex64), "x is torch.complex64"),
        (lambda den, x: x / 0, "the answer is not finite"),
    ],
)
def test_faults_are_found(answer: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of them is told with its number, and the command fails."""
    monkeypatch.setattr(settings, "solve", lambda den, x, **given: Solution(answer(den, x), 1, 1, ()))
    app = typer.Typer()
    app.command()(settings.main)
    found = CliRunner().invoke(app, ["--count", "1", "--first", "18"])
    assert "setting 18: " in found.output
    assert said in found.output
    assert found.exit_code == 1
