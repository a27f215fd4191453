"""docs/analysis.md: what it says is what comes out."""

import re
import sys
from functools import cache

import pytest
import torch
from pages import DOCS, blocks, printed
from typer.testing import CliRunner

import logsnr
from logsnr.cli import app

BLOCKS = blocks("analysis.md")


def same(output: str, said: str) -> bool:
    """Equal words, and numbers to 2 digits or, below 1e-3, within a factor of 2: they may be rounding."""
    words, wanted = output.split(), said.split()
    return len(words) == len(wanted) and all(map(close, words, wanted))


def close(word: str, wanted: str) -> bool:
    try:
        a, b = (float(w.strip("[],;")) for w in (word, wanted))
    except ValueError:
        return word == wanted
    return abs(a - b) <= (0.02 if abs(b) > 1e-3 else 1.0) * abs(b)


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and each that prints is followed by its output."""
    for output, said in printed(BLOCKS):
        assert same(output, said), output


def test_console_blocks_print_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the console blocks gives, in 80 columns, the lines that follow it."""
    monkeypatch.setenv("COLUMNS", "80")
    module = sys.modules[logsnr.analysis.rank.__module__]
    monkeypatch.setattr(module, "_planned", cache(module._planned))  # many programs are those of other commands
    commands = [part for kind, text in BLOCKS if kind == "console" for part in text.split("$ ")[1:]]
    assert commands
    for part in commands:
        command, said = part.split("\n", 1)
        result = CliRunner().invoke(app, command.split()[1:])
        output = f"error: {result.exception}" if result.exit_code else result.output
        assert same(output, said), output
        assert result.exit_code or max(map(len, said.splitlines())) <= 80


def test_pictures_exist() -> None:
    """Every picture of the page is there and below 150 KB."""
    for name in re.findall(r"\]\((figures/[^)]+)\)", (DOCS / "analysis.md").read_text()):
        assert 0 < (DOCS / name).stat().st_size < 150_000


def test_solvers_whose_steps_have_no_density() -> None:
    """Those that the page names, and no others that add noise."""
    told = re.search(r"about a stage with noise: `([^`]+)`", (DOCS / "analysis.md").read_text())
    assert told
    sch, refused = logsnr.VPLinear(), set()
    den = logsnr.Denoiser(lambda x, t: x, sch)
    for name in logsnr.solver_names():
        method = logsnr.solver(name)
        if method.planner and (program := method.program(sch, logsnr.grid(sch, 3))).noises:
            try:
                logsnr.log_prob(den, torch.zeros(program.steps + 1, 1, 1), program)
            except ValueError:
                refused.add(name)
    assert refused == set(told[1].split())
