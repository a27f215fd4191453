"""Commands of modules: mistakes and interrupts are a sentence."""

import runpy
import sys

import pytest
import typer

from logsnr.bench.command import run_command


def ended(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> object:
    """The status of a command that raises this."""

    def main(size: int = 3) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["command", "--size", "4"])
    with pytest.raises(SystemExit) as stopped:
        run_command(main, stopped="stopped; go on")
    return stopped.value.code


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("size = 4 [is] odd"), 2, "error: size = 4 [is] odd"),
        (FileNotFoundError(2, "No such file", "x"), 2, "error: [Errno 2] No such file: 'x'"),
        (KeyboardInterrupt(), 130, "stopped; go on"),
    ],
)
def test_an_error_is_one_line(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with the arguments is said on stderr, with status 2; Ctrl-C ends with 130."""
    assert ended(monkeypatch, error) == status
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_long_error_is_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines end between words, those after the first are indented, and a path stays whole."""
    monkeypatch.setenv("COLUMNS", "80")
    path = f"/{'folder/' * 14}file-of-mine.json"
    said = f"{path} is no program: " + "choose from " + ", ".join(f"sde-dpmpp-{k}m" for k in range(20))
    ended(monkeypatch, ValueError(f"{said}\nor none"))
    first, *lines, last = capsys.readouterr().err.splitlines()
    assert (first, lines[0], last) == ("error:", f"  {path}", "or none")
    assert all(line.startswith("  ") for line in lines)
    assert 70 < max(map(len, lines[1:])) <= 80
    assert " ".join(" ".join([first, *lines]).split()) == f"error: {said}"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the user's mistake is not hidden."""
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: typer.echo(1 / 0))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_a_module_says_what_is_wrong_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m logsnr.bench.picard` with a name that does not exist."""
    monkeypatch.setattr(sys, "argv", ["picard", "--problem", "digit"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("logsnr.bench.picard", run_name="__main__", alter_sys=True)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: problem = 'digit' is unknown; did you mean 'digits' or 'digits-net'?\n"
