"""docs/analysis.md: what it says is what comes out."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from logsnr.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "analysis.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)


def same(printed: str, said: str) -> bool:
    """Equal words, and numbers to 2 digits or, below 1e-3, within a factor of 2: they may be rounding."""
    words, wanted = printed.split(), said.split()
    return len(words) == len(wanted) and all(map(close, words, wanted))


def close(word: str, wanted: str) -> bool:
    try:
        a, b = (float(w.strip("[],;")) for w in (word, wanted))
    except ValueError:
        return word == wanted
    return abs(a - b) <= (0.02 if abs(b) > 1e-3 else 1.0) * abs(b)


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and each that prints is followed by its output."""
    names: dict[str, object] = {}
    for (kind, code), (next_kind, said) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(code, names)
            assert same(output.getvalue(), said if next_kind == "text" else ""), output.getvalue()


def test_console_blocks_print_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the console blocks gives, in 80 columns, the lines that follow it."""
    monkeypatch.setenv("COLUMNS", "80")
    commands = [part for kind, text in BLOCKS if kind == "console" for part in text.split("$ ")[1:]]
    assert commands
    for part in commands:
        command, said = part.split("\n", 1)
        result = CliRunner().invoke(app, command.split()[1:])
        printed = f"error: {result.exception}" if result.exit_code else result.output
        assert same(printed, said), printed
        assert result.exit_code or max(map(len, said.splitlines())) <= 80


def test_pictures_exist() -> None:
    """Every picture of the page is there and below 150 KB."""
    for name in re.findall(r"\]\((figures/[^)]+)\)", PAGE.read_text()):
        assert 0 < (PAGE.parent / name).stat().st_size < 150_000
