"""What is wrong with a sampler as it is run, found by looking and by measuring on exact problems.

`examine` gives findings, which are data; every check is a function from a subject and what is measured of it.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...solvers.catalogue.catalogue import solver
from .faults import FAULTS
from .names import CFG_PP
from .orders import Choice, Measured
from .subjects import parse
from .types import Subject, same

KINDS = ("solver", "order", "nan", "precision", "last step", "known fault", "instead")
SEVERITIES = ("good", "note", "warning", "danger")
LOST = 0.4  # of an order, and it is gone
MATTERS = 0.1  # of the error: what adds less is not to be worried about
LOWERED = ("DPMSolverMultistep", "DEISMultistep", "UniPCMultistep", "SASolver")  # whose last steps are of lower order
FAR = 0.05  # sigma that is left at the end, above which noise is seen


@dataclass(frozen=True)
class Finding:
    """kind: one of `KINDS`; severity: "good", "note", "warning" or "danger"; text: sentences."""

    kind: str
    severity: str
    text: str


Check = Callable[[Subject, Measured], Iterator[Finding]]


def examine(subject: Subject | str, **options: int | str) -> tuple[Finding, ...]:
    """All findings, by kind. subject: a `Subject`, or what `subjects.parse` reads, with its options sigmas,
    scheduler and steps. Some seconds. Raises ValueError for what is not known."""
    found = parse(subject, **options) if isinstance(subject, str) else subject  # type: ignore[arg-type]
    measured = Measured(found)
    checks = SEEN if _rises(found) else (*SEEN, *RUN)
    findings = [finding for check in checks for finding in check(found, measured)]
    return tuple(sorted(findings, key=lambda finding: KINDS.index(finding.kind)))


def _rises(subject: Subject) -> bool:
    """Whether there is no run with such levels."""
    return not (np.diff(subject.levels()) <= 0).all()


def what_it_is(subject: Subject, measured: Measured) -> Iterator[Finding]:
    levels, method = subject.levels(), subject.shipped
    summary = re.sub(r"; \w+=$", "", method.summary or subject.right.summary)  # the option that it has is no news here
    yield Finding("solver", "note", f"{subject.name} is {method.name} here: {summary}.")
    if CFG_PP in subject.name:
        yield Finding("solver", "note", "CFG++ is another guidance, by the same steps: they are measured without it.")
    name = "sigma" if subject.flow else "sigma / alpha"
    yield Finding(
        "solver",
        "note",
        f"Its grid: {subject.grid}; {len(levels) - 1} steps, {name} from {levels[0]:.4g} to {levels[-1]:.4g}. "
        f"Its model returns {subject.head}.",
    )


def rising(subject: Subject, measured: Measured) -> Iterator[Finding]:
    if _rises(subject):
        yield Finding("nan", "danger", f"Its levels do not decrease: {subject.levels().tolist()!s:.80}.")


def repeated(subject: Subject, measured: Measured) -> Iterator[Finding]:
    levels = subject.levels()
    twice = np.flatnonzero(same(levels))
    if not len(twice):
        return
    config, many = subject.config, subject.right.order > 1 and not subject.config.get("euler_at_final")
    thrice = config.get("solver_type") == "heun" or (config.get("solver_order") or 2) > 2
    divides = not config or ("DPMSolverMultistep" in subject.name and thrice)
    told = f"sigma = {levels[twice[0]]:.4g} stands twice, {'last' if twice[-1] == len(levels) - 2 else 'within'}: "
    if many and divides:
        yield Finding(
            "nan", "danger", f"{told}a step of length 0, by which a multistep formula divides: NaN from about 15 steps "
            "on, where lower orders do not end the run. logsnr leaves such steps out.",
        )  # fmt: skip
    else:
        yield Finding("nan", "warning", f"{told}an evaluation for nothing; formulas that divide by it give NaN.")


def infinite_start(subject: Subject, measured: Measured) -> Iterator[Finding]:
    if math.isinf(subject.levels()[0]) and subject.head == "eps":
        yield Finding(
            "nan", "danger", "Zero terminal SNR with a model of eps: x0 = (x - sigma eps) / alpha divides by alpha = 0 "
            "at the first step, and eps says nothing there. Take a v model, or leave out rescale_betas_zero_snr.",
        )  # fmt: skip


def infinite_end(subject: Subject, measured: Measured) -> Iterator[Finding]:
    lowered = subject.config.get("lower_order_final", True) or subject.config.get("euler_at_final")
    if subject.levels()[-1] == 0 and subject.shipped.order > 1 and not lowered:
        yield Finding(
            "nan", "danger", "lower_order_final is off and the last sigma is 0: the last step is infinitely long in "
            "log sigma, and formulas of higher order take inf - inf there. Set euler_at_final.",
        )  # fmt: skip


def orders(subject: Subject, measured: Measured) -> Iterator[Finding]:
    """The order at every rung, and what each took."""
    rungs, kind = measured.rungs, "weak order" if measured.stochastic else "order"
    yield Finding("order", "note", f"Declared: {kind} {subject.right.order}. Measured, on exact problems:")
    before = float("nan")
    for rung in rungs:
        order = rung.found.order
        lost = before - order > LOST
        error = f"error {rung.found.errors[-1]:.1e} at {rung.found.nfe[-1]} evaluations"
        yield Finding(
            "order", "warning" if lost else "note", f"{_order(order)}: {rung.told} ({error}){'; lost here' * lost}."
        )
        before = order


def _order(order: float) -> str:
    return "none" if math.isnan(order) else f"{max(order, 0.0):.2f}"


def final_orders(subject: Subject, measured: Measured) -> Iterator[Finding]:
    """lower_order_final is of diffusers' formulas, not of the program here, so that it is told."""
    always = subject.name.startswith(LOWERED[2:])
    on = subject.config.get("lower_order_final", subject.name.startswith(LOWERED))
    if on and subject.shipped.order > 2 and (always or subject.steps < 15 or subject.levels()[-1] == 0):
        yield Finding(
            "order", "warning", f"lower_order_final ends {'every run' if always else 'runs of fewer than 15 steps'}"
            f"{'' if always else ', and those to sigma = 0,'} with a step of order 2 and one of order 1: the whole is "
            "then of order 2 at most.",
        )  # fmt: skip


def told(subject: Subject, measured: Measured) -> Iterator[Finding]:
    """Timesteps that are whole numbers."""
    other, own = measured.told_otherwise, measured.own
    if other is None or subject.asked is None:
        return
    levels = subject.levels()[:-1]
    off = float(np.abs(np.log(subject.asked(subject.steps) / levels)).max())
    if not off:
        return
    yield Finding(
        "precision", "warning" if other > (1 + MATTERS) * own else "note",
        f"The model is told whole timesteps, up to {off:.1%} off the sigma that the solver has: error {other:.1e} "
        f"instead of {own:.1e}. More steps do not lower that floor. logsnr tells the exact time.",
    )  # fmt: skip


def dtypes(subject: Subject, measured: Measured) -> Iterator[Finding]:
    """What a state of fewer bits does, rounded after every step as others round it."""
    if measured.stochastic or math.isinf(subject.levels()[0]):
        return
    found = ", ".join(f"{name} {error:.1e}" for name, error in measured.floors.items())
    worst = max(measured.floors.values())
    yield Finding(
        "precision", "warning" if worst > MATTERS * measured.own else "note",
        f"Rounding of the state and of the answers adds {found}; the solver's own error is {measured.own:.1e}."
        + " diffusers casts the state to the model's dtype after every step; logsnr keeps fp32 at least."
        * (subject.library == "diffusers"),
    )  # fmt: skip


def last_step(subject: Subject, measured: Measured) -> Iterator[Finding]:
    levels = subject.levels()
    last, before = float(levels[-1]), float(levels[levels > 0][-1])
    if last == 0 and subject.flow:
        yield Finding("last step", "note", f"From sigma = {before:.3g} to 0 along the velocity: of finite length.")
    elif last == 0:
        costs = "costs" if before > FAR else "costs little"
        yield Finding(
            "last step", "warning" if before > FAR else "note", f"From sigma = {before:.3g} to 0 it takes the model's "
            f"x0 as it is: first order, whatever the solver. That {costs}: detail finer than {before:.2g} is the mean "
            f"of what it could be, an error of about {before:.2g}^2 / 2 s for data of spread s that stays with any "
            "number of steps.",
        )  # fmt: skip
    else:
        yield Finding(
            "last step", "warning" if last > FAR else "note", f"It stops at sigma = {last:.3g}: that much noise is "
            "left, and the solver keeps its order.",
        )  # fmt: skip


def known_faults(subject: Subject, measured: Measured) -> Iterator[Finding]:
    yield from (Finding("known fault", f.severity, f.text) for f in FAULTS if f.when(subject))


def instead(subject: Subject, measured: Measured) -> Iterator[Finding]:
    """The best of what takes as many evaluations, by the same measure."""
    nfe, own, law = len(measured.program), measured.own, " in law" * measured.stochastic
    problem = "Gaussian data" if measured.stochastic else "the mixture"
    yield Finding("instead", "note", f"As it is: error {own:.1e}{law} at {nfe} evaluations, on {problem}.")
    shown = measured.choices[:2]
    better = min((choice.error for choice in shown), default=math.inf)
    if better > own:
        yield Finding("instead", "good", "Nothing that was tried here is better: keep it.")
    for choice in shown:
        severity = "good" if choice.error < own else "note"
        gain = f"{_times(own / choice.error)} times less" if choice.error < own else "not better"
        told = f"{choice.solver}{f' on {choice.grid}' if choice.grid else ''}: error {choice.error:.1e} at "
        yield Finding("instead", severity, f"{told}{choice.nfe} evaluations, {gain}.\n{line(subject, choice)}")


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:,.0f}"


def line(subject: Subject, choice: Choice) -> str:
    """How to run the choice where the subject is run."""
    grid = f", grid={choice.grid!r}" if choice.grid else ""
    if choice.solver == "auto":
        return f"logsnr.sample(den, x, nfe={choice.nfe})"
    steps = choice.nfe // solver(choice.solver).evaluations
    if subject.library == "diffusers":
        told = "LogSNRScheduler.from_config(pipe.scheduler.config,\n    solver="
        return f"{told}{choice.solver!r}{grid})  # {steps} steps"
    code = f"logsnr.sample(den, x, nfe={choice.nfe}, solver={choice.solver!r}{grid})"
    if subject.library != "ComfyUI":
        return code
    name = choice.solver.replace("-", "_")
    return f"{code}\n# ComfyUI: nodes logsnr sampler ({name}), logsnr sigmas ({choice.grid}, {steps})"


SEEN: tuple[Check, ...] = (what_it_is, rising, repeated, infinite_start, infinite_end)
RUN: tuple[Check, ...] = (orders, final_orders, told, dtypes, last_step, known_faults, instead)
