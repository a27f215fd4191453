"""`logsnr doctor`: the findings about a sampler in 80 columns; with --measure beside what its own library does."""

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from ..command import interruptible

if TYPE_CHECKING:
    from ...integrations.doctor import Finding

WIDTH = 80
MARKS = {"good": "+", "note": " ", "warning": "!", "danger": "!!"}


@interruptible()
def doctor(
    subject: Annotated[
        str, typer.Argument(help='scheduler_config.json or its folder; or a sampler: "dpmpp_2m karras".')
    ] = "",
    scheduler: Annotated[str, typer.Option(help="The grid of a sampler of ComfyUI: karras, normal, beta, ...")] = "",
    sigmas: Annotated[str, typer.Option(help='A list in place of a grid: "14.6, 7, 2, 0.5, 0".')] = "",
    steps: Annotated[int, typer.Option(help="Steps of the run; a list of sigmas has its own.")] = 20,
    measure: Annotated[bool, typer.Option("--measure", help="Run the library's own scheduler, too.")] = False,
) -> None:
    """What is wrong with a sampler as it is run: its measured order, where it loses it, and what to take instead.

    For schedulers of diffusers, samplers of ComfyUI and A1111 with their grid, and lists of sigmas. Orders and errors
    are measured on exact problems, in seconds, without a network.
    """
    from ...integrations.doctor import examine
    from ...integrations.doctor.subjects import parse

    asked = parse(subject, sigmas=sigmas, scheduler=scheduler, steps=steps)
    if measure:
        from .foreign import check_foreign, foreign

        check_foreign(asked)
    print(sheet(examine(asked)))
    if measure:
        print(f"\n{sheet(foreign(asked))}")


def sheet(findings: Sequence["Finding"]) -> str:
    """The findings under headings, at most 80 columns; lines after the first of a text are code and stay whole."""
    lines: list[str] = []
    kind = ""
    for finding in findings:
        if finding.kind != kind:
            kind = finding.kind
            lines += [*([""] if lines else []), kind.upper()]
        text, *code = finding.text.split("\n")
        mark = MARKS[finding.severity]
        lines += wrap(text, WIDTH, initial_indent=f" {mark:2} ", subsequent_indent="    ", break_on_hyphens=False)
        lines += [f"      {part}" for part in code]
    return "\n".join(lines)
