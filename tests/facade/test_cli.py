import csv
import re
import sys
from functools import cache, partial

import pytest
from typer.testing import CliRunner

import logsnr
from logsnr.analysis import orders, weak
from logsnr.bench.report import explorer
from logsnr.cli import app, main
from logsnr.solvers.catalogue.catalogue import families


def run(monkeypatch, *args):
    """`logsnr ARGS` as the console script runs it; returns the exit status."""
    monkeypatch.setattr(sys, "argv", ["logsnr", *map(str, args)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_options_are_repeated_for_several_values(tmp_path, monkeypatch):
    """`--nfe 4 --nfe 6 --solvers ddim --solvers euler` measures two solvers at two budgets."""
    monkeypatch.setattr(explorer, "available", lambda: False)  # whose script takes seconds
    args = ["bench", "--problem", "mixture", "--solvers", "ddim", "--solvers", "euler", "--nfe", "4", "--nfe", "6"]
    result = CliRunner().invoke(app, [*args, "--grid", "time", "--samples", "4", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / "results.csv").open(newline="") as file:
        found = [(row["solver"], row["nfe"]) for row in csv.DictReader(file)]
    assert found == [("ddim", "4"), ("euler", "4"), ("ddim", "6"), ("euler", "6")]
    assert (tmp_path / "index.html").exists()


def test_bench_takes_stochastic_solvers(tmp_path):
    """With `--solvers sde-dpmpp-2m` the law of what it generates is measured, next to the sampling error."""
    args = ["bench", "--problem", "mixture", "--solvers", "sde-dpmpp-2m", "--nfe", "10", "--nfe", "20"]
    result = CliRunner().invoke(app, [*args, "--samples", "20", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "sliced W2 of 20 samples from 500 exact samples" in result.output
    assert "exact samples: " in result.output
    with (tmp_path / "results.csv").open(newline="") as file:
        found = [(row["nfe"], float(row["sliced_w2"]) > 0, row["median"]) for row in csv.DictReader(file)]
    assert found == [("10", True, ""), ("20", True, "")]


def test_version() -> None:
    """--version prints that of the package."""
    assert CliRunner().invoke(app, ["--version"]).output.strip() == logsnr.__version__


def expanded(name: str) -> list[str]:
    """The names that a shell makes of one with braces."""
    if not (found := re.search(r"\{(.+)\}", name)):
        return [name]
    low, _, high = found[1].partition("..")
    numbers = map(str, range(int(low), int(high) + 1)) if high else found[1].split(",")
    return [name.replace(found[0], number) for number in numbers]


def test_solvers_lists_every_name(monkeypatch):
    """`logsnr solvers` shows each name that `solver=` takes, also of those that need something given, in families of
    one screen."""
    monkeypatch.setenv("COLUMNS", "80")
    output = CliRunner().invoke(app, ["solvers"]).output
    shown = [name for row in re.findall(r"^(\S+) +[\d-]+ +[\d-]+  ", output, re.MULTILINE) for name in expanded(row)]
    assert shown == [name for names in families().values() for name in names]
    assert set(logsnr.solver_names()) < set(shown)
    assert max(len(family.splitlines()) for family in output.split("\n\n")) <= 42
    told = " ".join(output.split())
    assert "dpmpp_2m or res_multistep is dpmpp-2m" in told
    assert "DPM++ 3M SDE is sde-dpmpp-3m" in told
    assert max(map(len, output.splitlines())) <= 80


def test_solvers_tells_one_by_any_name(monkeypatch):
    """With a name, ours or one of elsewhere, `logsnr solvers` says what it is and what others call it."""
    found = CliRunner().invoke(app, ["solvers", "DPM++ 2M Karras"]).output
    assert found.startswith("dpmpp-2m: order 2, 1 model evaluation a step\n")
    assert "diffusers: DPMSolverMultistepScheduler" in found
    assert found.endswith("grid: karras\n")
    assert run(monkeypatch, "solvers", "dpmpp-2x") == 2
    for own in ("heun", "euler"):  # names that mean another solver elsewhere
        assert CliRunner().invoke(app, ["solvers", own]).output.startswith(f"{own}: ")


@pytest.mark.parametrize(("name", "declared"), [("heun", 2), ("dpmpp-3m", 3)])
def test_order_measures_and_says_what_the_ramp_does(name, declared, monkeypatch):
    """`logsnr order` shows the slope, and for multistep solvers of order 3 what the ramp leaves of it."""
    monkeypatch.setattr(orders, "convergence_order", partial(orders.convergence_order, max_nfe=1000))
    output = " ".join(CliRunner().invoke(app, ["order", name]).output.split())
    measured = float(re.search(rf"{name}: order ([\d.]+), .*declared {declared}", output)[1])
    assert abs(measured - declared) < 0.1
    assert ("a global order of at most 2" in output) == (declared == 3)


def test_order_of_a_stochastic_solver_is_its_weak_order(monkeypatch):
    """`logsnr order` shows the order of the law for a solver that adds noise."""
    monkeypatch.setattr(weak, "weak_order", partial(weak.weak_order, max_nfe=300))
    output = " ".join(CliRunner().invoke(app, ["order", "sde-dpmpp-2m"]).output.split())
    assert abs(float(re.search(r"sde-dpmpp-2m: order ([\d.]+), .*declared 2", output)[1]) - 2) < 0.1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["order", "dpmpp-3x"], "did you mean 'dpmpp-3s' or 'dpmpp-3m'"),
        (["order", "bosh3"], "chooses its own steps"),
        (["bench", "--problem", "digit"], "did you mean 'digits'"),
        (["bench", "--nfe"], "'--nfe' requires an argument"),
        (["bench", "--samples", "0"], "'--samples'"),
        (["bench", "--nfe", "99999999"], "nfe = 99999999 takes too long; at most 10000"),
        (["explain", "ddim", "--steps", "99999999"], "steps = 99999999 is too long to explain; at most 1000"),
        (["rank", "--nfe", "100000"], "nfe = 100000 takes too long to rank; at most 1000"),
        (
            ["bench", "--solvers", "ddim", "--nfe", "5", "--problem", "gaussian", "--out", f"{__file__}/report"],
            "test_cli",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, said, monkeypatch, capsys):
    """What cannot be done is said on stderr without a traceback, with exit status 2."""
    assert run(monkeypatch, *args) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("args", "where", "said"),
    [
        (["bench"], "logsnr.bench.job.run_bench", "stopped; the same command goes on from here"),
        (["order", "ddim"], "logsnr.analysis.orders.convergence_order", "stopped"),
    ],
)
def test_an_interrupt_is_one_line_and_status_130(args, where, said, monkeypatch, capsys):
    """Ctrl-C ends with status 130 and one line; that of a bench says how to go on."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stop)
    assert run(monkeypatch, *args) == 130
    assert capsys.readouterr().err.splitlines() == [said]


def test_rank_answers_from_the_spectrum(monkeypatch, capsys):
    """`logsnr rank` lists solvers by error within a budget, and says when nothing reaches the target."""
    transfer = sys.modules[logsnr.analysis.rank.__module__]
    monkeypatch.setattr(transfer, "_planned", cache(transfer._planned))  # the programs of both are the same
    result = CliRunner().invoke(app, ["rank", "--stds", "0.1", "--stds", "1", "--nfe", "3", "--best", "3"])
    assert result.exit_code == 0, result.output
    *lines, note = result.output.splitlines()[1:]
    errors = [float(line.split()[-1]) for line in lines]
    assert note.startswith("For Gaussian data of this spectrum")
    assert len(errors) == 3
    assert errors == sorted(errors)
    assert run(monkeypatch, "rank", "--stds", "0.1", "--target", "1e-9", "--nfe", "3") == 2
    said = capsys.readouterr().err
    assert "no solver reaches target = 1e-09 within nfe = 3; " in said
    assert "comes closest" in said


def test_explain_prints_the_table():
    """`logsnr explain` prints the solver's program and the names it equals."""
    result = CliRunner().invoke(app, ["explain", "ddim", "--steps", "3"])
    assert result.exit_code == 0, result.output
    assert "ddim: order 1, 3 steps, 3 model evaluations" in result.output
    assert "deis-1, deis-rho-1, lms-1, dpm-1, dpmpp-1, ipndm-1" in result.output
