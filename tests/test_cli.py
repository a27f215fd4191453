import csv
import sys

import pytest
from typer.testing import CliRunner

import logsnr
from logsnr.cli import app, main, spread_values


@pytest.mark.parametrize(
    ("args", "spread"),
    [
        (["--nfe", "5", "6"], ["--nfe", "5", "--nfe", "6"]),
        (["--nfe", "5,6", "8"], ["--nfe", "5", "--nfe", "6", "--nfe", "8"]),
        (["--nfe=5,6", "--out", "x"], ["--nfe", "5", "--nfe", "6", "--out", "x"]),
        (["--nfe", "5", "--nfe", "6"], ["--nfe", "5", "--nfe", "6"]),
        (["--out", "a,b", "--fresh"], ["--out", "a,b", "--fresh"]),
        (["plain", "--out=a"], ["plain", "--out=a"]),
    ],
)
def test_options_take_several_values(args, spread):
    """Values after a repeatable option, or between its commas, each become an option of their own."""
    assert spread_values(args, {"--nfe"}) == spread


def run(monkeypatch, *args):
    """`logsnr ARGS` as the console script runs it; returns the exit status."""
    monkeypatch.setattr(sys, "argv", ["logsnr", *map(str, args)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_bench_takes_several_values_after_one_flag(tmp_path):
    """`--nfe 4 6 --solvers ddim,euler` measures two solvers at two budgets."""
    args = ["bench", "--problem", "mixture", "--solvers", "ddim,euler", "--nfe", "4", "6", "--grid", "time"]
    result = CliRunner().invoke(app, [*args, "--samples", "4", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / "results.csv").open(newline="") as file:
        found = [(row["solver"], row["nfe"]) for row in csv.DictReader(file)]
    assert found == [("ddim", "4"), ("ddim", "6"), ("euler", "4"), ("euler", "6")]
    assert (tmp_path / "index.html").exists()


def test_solvers_lists_every_name(monkeypatch):
    """`logsnr solvers` shows one line for each name that `solver=` takes."""
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["solvers"])
    shown = [line.split()[0] for line in result.output.splitlines()[1:]]
    assert shown == logsnr.solver_names()


def test_order_measures_and_says_what_the_start_does():
    """`logsnr order deis-2 --startup ramp` finds order 2 for a method that the ramp does not limit."""
    result = CliRunner().invoke(app, ["order", "deis-2", "--startup", "ramp"])
    assert "deis-2: measured order 2.0" in result.output


def test_order_says_what_the_ramp_costs(monkeypatch):
    """For a solver of order 3 the command says what the ramp start does to the order."""
    from logsnr.analysis import orders

    few = lambda *args, **kwargs: orders.Convergence("dpmpp-3m", 3, "ramp", (8,), (8,), (0.1,), (), 2.0)  # noqa: E731
    monkeypatch.setattr(orders, "convergence_order", few)
    result = CliRunner().invoke(app, ["order", "dpmpp-3m"])
    assert "a global order of at most 2" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["order", "dpmpp-3x"], "did you mean 'dpmpp-3s' or 'dpmpp-3m'"),
        (["order", "bosh3"], "chooses its own steps"),
        (["bench", "--problem", "digit"], "did you mean 'digits'"),
        (["bench", "--nfe"], "--nfe needs at least one value"),
        (["bench", "--samples", "0"], "'--samples'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, said, monkeypatch, capsys):
    """What cannot be done is said on stderr without a traceback, with exit status 2."""
    assert run(monkeypatch, *args) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "Traceback" not in error


def test_an_interrupt_is_status_130(monkeypatch, capsys):
    """Ctrl-C ends with status 130 and says how to go on."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("logsnr.bench.job.run_bench", stop)
    assert run(monkeypatch, "bench") == 130
    assert "the same command goes on" in capsys.readouterr().err
