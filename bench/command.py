"""How commands end, mistakes and interrupts in a sentence and not in a traceback; and how tables are printed."""

import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


@contextmanager
def interruptible(line: str = "stopped") -> Iterator[None]:
    """Ctrl-C ends a command with ``line`` and status 130; for its function as a decorator."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print(line)
        raise typer.Exit(130) from None


def run_app(app: typer.Typer) -> None:
    """Run the commands of ``app``: an error in what was asked for is its message and status 2."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(filled(f"error: {error}", console.width), style="red", markup=False)
        sys.exit(2)


def filled(text: str, width: int) -> str:
    """``text`` in lines of ``width`` columns, but for words that are longer, as paths are: these stay whole."""
    whole: Any = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "  "}
    return "\n".join(textwrap.fill(line, width, **whole) for line in text.splitlines())


def run_command(function: Callable[..., None], *, stopped: str = "stopped") -> None:
    """Run the one command of a module; its annotations are the options."""
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    decorated: Any = interruptible(stopped)(function)
    app.command()(decorated)
    run_app(app)


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]], told: str = "", *, left: int = 1) -> None:
    """Print a table, all columns but the first ones to the right, and a line about it."""
    table = Table(*heads, box=None)
    for column in table.columns[left:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    if told:
        console.print(told)
