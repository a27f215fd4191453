"""`Comparison` in words: tables of 80 columns and a verdict for every budget."""

from itertools import chain
from textwrap import wrap
from typing import TYPE_CHECKING

from .comparison_rows import LawRow, PathRow

if TYPE_CHECKING:
    from .comparison import Comparison

WIDTH = 80
SHOWN = 8  # rows of one budget in print
NAMED = 3  # rows in a sentence
SAFE = "auto"  # what is said of besides the best


def told(found: "Comparison") -> str:
    """Conditions, a table for every budget, and the verdicts."""
    said = found.conditions
    shape = " x ".join(map(str, said.event_shape))
    laws = f" ({said.law_samples} of stochastic solvers)" if found.laws else ""
    tuned = f" Tables are tuned on {said.tuned} other noises." if said.tuned else ""
    kind = "order 5" if said.reference_cost else "exact"
    head = [
        said.denoiser,
        f"{said.samples} samples of {shape}{laws}, t = {said.t_start:.6g} to {said.t_end:.6g}, seed {said.seed}; "
        f"spread of the ends {said.spread:.2g}.",
        f"Reference: {kind}, good to {short(said.error)}. Cost: {said.reference_cost:,} evaluations of a sample for it "
        f"and {said.cost:,} for the rows.{tuned}",
    ]
    lines = list(chain(*(wrap(line, WIDTH, subsequent_indent="  ") for line in head)))
    for nfe in found.budgets:
        lines += ["", *_table(found, nfe)]
    lines.append("")
    for text in (*map(found.verdict, found.budgets), *found.notes):
        lines += wrap(text, WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _table(found: "Comparison", nfe: int) -> list[str]:
    lines = []
    if any(row.nfe == nfe for row in found.rows):
        far = f"> {found.conditions.threshold:.2g}"
        lines.append(f"{f'{nfe} evaluations':20} {'grid':12} {'start':12}{'median':>9}{'rms':>9}{far:>9}")
        ranked = found.ranked(nfe)
        lines += [
            f"{row.solver:20.20} {row.grid:12.12} {row.startup:12}{short(row.median):>9}{short(row.rms):>9}"
            f"{row.far:>8.0%}" + (f"  {row.note}" if row.note else "")
            for row in ranked
            if row in ranked[:SHOWN] or row.note
        ]
        if hidden := [row for row in ranked[SHOWN:] if not row.note]:
            lines.append(f"and {len(hidden)} more in .ranked({nfe})")
    laws = sorted((law for law in found.laws if law.nfe == nfe), key=lambda law: law.energy_distance)
    if laws:
        lines += [""] * bool(lines)
        lines.append(f"{f'{nfe} evaluations, law':20} {'grid':12} {'start':12}{'energy':>9}{'sliced W2':>11}")
        lines += [
            f"{law.solver:20.20} {law.grid:12.12} {law.startup:12}{law.energy_distance:9.3g}{law.sliced_w2:11.3g}"
            + (f"  {law.note}" if law.note else "")
            for law in laws
        ]
        exact = found.exact["energy_distance"][0], found.exact["sliced_w2"][0]
        lines.append(f"{'exact samples':46}{exact[0]:9.3g}{exact[1]:11.3g}")
    return lines


def verdict(found: "Comparison", nfe: int) -> str:
    """What to use at this budget."""
    parts = []
    if any(row.nfe == nfe for row in found.rows):
        parts.append(_paths(found, nfe))
    if laws := [law for law in found.laws if law.nfe == nfe]:
        best, (middle, high) = min(laws, key=lambda law: law.energy_distance), found.exact["energy_distance"]
        near = "no farther than exact samples are" if best.energy_distance <= high else "farther than exact samples are"
        parts.append(
            f"With noise {_name(best)} is nearest in law, energy distance {best.energy_distance:.2g}, {near} "
            f"({middle:.2g}, 95 % below {high:.2g})."
        )
    text = " ".join(parts)
    return f"At {nfe} evaluations: {text[:1].lower()}{text[1:]}"


def _paths(found: "Comparison", nfe: int) -> str:
    ranked, alike = found.ranked(nfe), found.alike(nfe)
    best, error = ranked[0], short(found.conditions.error)
    if best.median == float("inf"):
        return "no solver gives finite samples."
    if best.median <= found.resolution:
        same = [row for row in ranked if row.median <= found.resolution]
        return (
            f"{_list(same)} cannot be ranked: they are as near as the reference is good, which is {error}, so any of "
            "them will do."
        )
    text = f"{_name(best)}, median error {short(best.median)}"
    if alike:
        text += f"; not told apart from it by {found.conditions.samples} samples: {_list(alike, errors=True)}"
    safe = next((row for row in ranked if row.solver == SAFE), None)
    if safe and safe is not best and safe not in alike:
        text += f"; `{SAFE}` {short(safe.median)}"
    return f"{text}. The reference is good to {error}."


def _name(row: PathRow | LawRow) -> str:
    grid = {"own": ", which brings its own grid"}.get(row.grid, f' on grid "{row.grid}"')
    start = ", single-step start" if row.startup == "single-step" else ""
    return f"`{row.solver}`{grid}{start}"


def _list(rows: list[PathRow], errors: bool = False) -> str:
    names = [f"`{row.solver}`" + (f" ({row.grid}) {short(row.median)}" if errors else f" ({row.grid})") for row in rows]
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def short(value: float) -> str:
    """Two digits: 0.012, 1.2e-05."""
    return f"{value:.2g}"
