"""Guidance: a model is asked with and without its condition, and steps are made of both answers.

Where the weights are numbers, they are columns of the program: no pass over memory is added. Others are a few torch
operations on the two answers. Every rule is linear in the answers, and heads are linear in (x0, eps): plain guidance is
the same in all heads. Rules with sums over the answers depend on the head, and are taken of what the network returns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..arrays import Array, Mask
from ..names import nearest
from ..schedules.base import Schedule
from .conditions import Conditions, as_rows, check_conditions, column, rows_of
from .guidance_rules import COLUMNS, KINDS, RULES, Weights

Scale = float | Callable[[Array], Array]


@dataclass(frozen=True)
class Rule:
    """What plans know of a guidance. scale: a number, a tuple of one per sample, or a function of lam. learned: it is
    that of a tensor to which gradients are wanted, and may change."""

    kind: str
    scale: float | tuple[float, ...] | Callable[[Array], Array]
    interval: tuple[float, float] | None
    learned: bool = False

    @property
    def columns(self) -> bool:
        """Whether weights are numbers of the call: the program's own columns."""
        return self.kind in COLUMNS and not isinstance(self.scale, tuple) and not self.learned

    @property
    def splits(self) -> bool:
        """Whether x0 and eps come from different answers."""
        return self.kind == "cfg++"

    def check_answer(self) -> None:
        """ValueError where the two answers cannot be made one."""
        if self.kind not in RULES:
            raise ValueError(
                f"guidance: {self.kind!r} takes x0 and eps from different answers, which only runs with fixed steps, "
                "without parallel=, map_x0= and a t_start of every sample, can do"
            )

    def scales(self, lam: Array) -> Array:
        """(n,), or (n, B): the scale at each lam, 1 outside the interval. ValueError unless all are finite."""
        given: Any = self.scale(lam) if callable(self.scale) else self.scale
        shape = (len(lam), len(self.scale)) if isinstance(self.scale, tuple) else (len(lam),)
        try:
            real = np.asarray(given).astype(np.float64, casting="same_kind")  # no complex numbers, no strings
            values = np.array(np.broadcast_to(real, shape))
        except (TypeError, ValueError):
            raise ValueError(
                f"guidance: scale as a function of lam must return a number for each of the {len(lam)} given, not "
                f"{given!r:.60}"
            ) from None
        if not np.isfinite(values).all():
            raise ValueError("guidance: the scale must be finite at every lam of the grid")
        values[~self.inside(lam)] = 1.0
        return values

    def inside(self, lam: Array) -> Mask:
        """(n,): whether there is guidance at each lam."""
        low, high = self.interval or (-np.inf, np.inf)
        return np.asarray((lam >= low) & (lam <= high))

    def needs(self, scales: Any) -> tuple[bool, bool]:
        """Whether the unconditional and the conditional answers count, for one or several scales."""
        scales = np.asarray(scales)
        without = self.splits or bool((scales != 1).any())
        return without, self.kind not in COLUMNS or bool((scales != 0).any())

    def asks(self, sch: Schedule, times: Any) -> tuple[Array, list[tuple[bool, bool]]]:
        """The scale at each of the schedule's ``times`` (n,), and what it needs."""
        lam = np.asarray(sch.half_logsnr(np.asarray(times, dtype=np.float64)))
        scales, inside = self.scales(lam), self.inside(lam)
        return scales, [
            (True, True) if self.learned and here else self.needs(w) for w, here in zip(scales, inside, strict=True)
        ]

    def weights(self, scale: float) -> Weights:
        """Of the answers that are needed: the unconditional one, then the conditional one."""
        x0, eps = COLUMNS[self.kind](float(scale))
        kept = [k for k, need in enumerate(self.needs(scale)) if need]
        return Weights(tuple(x0[k] for k in kept), tuple(eps[k] for k in kept))


@dataclass(frozen=True, eq=False)
class Guidance:
    """How a denoiser is guided.

    scale:    w of ``uncond + w (cond - uncond)``: 1 is the condition alone, 0 none. A number, a tensor (B,) of one per
              sample, or a function of lam (float64 arrays in, arrays out). A tensor that requires gradients gets them
              in runs that record any: it is then no column of the table, and read at every call.
    interval: (lo, hi) in lam, outside which the scale is 1 and the model is asked once (Kynkaanniemi et al. 2024).
    uncond:   the conditions that count without guidance, by name; others are the denoiser's own. A negative prompt is
              such a condition. A number in the place of a tensor is that of every row.
    model:    another model for the unconditional answer: a weaker one (Karras et al. 2024, autoguidance), or the same
              one with a perturbed pass. It takes what the first takes.
    kind:     "cfg"; "cfg++" (Chung et al. 2024: eps from the unconditional answer, x0 from the guided one); "rescale"
              (options ``rescale``), "zero-star", "apg" (options ``eta``, ``threshold``, ``momentum``), "perpendicular",
              "tcfg". Momentum goes from call to call: not with parallel=, checkpoint= and adaptive steps.
    batched:  ask for both answers in one call of twice the rows; else in two.
    options:  of the kind.

    An evaluation with guidance counts 2. Raises ValueError or TypeError for what is none of these.
    """

    scale: Any
    interval: tuple[float, float] | None = None
    uncond: Mapping[str, Any] | None = None
    model: Callable[..., Any] | None = None
    kind: str = "cfg"
    batched: bool = True
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"guidance: kind = {self.kind!r} is not one{nearest(self.kind, KINDS)}")
        if self.model is not None and not callable(self.model):
            raise TypeError(f"guidance: model must be a callable, not {type(self.model).__name__}")
        object.__setattr__(self, "uncond", check_conditions("uncond", self.uncond))
        if not isinstance(self.batched, bool):
            raise TypeError(f"guidance: batched must be True or False, not {self.batched!r:.60}")
        _check_options(self.kind, self.options)
        learned = isinstance(self.scale, torch.Tensor) and self.scale.requires_grad
        rule = Rule(self.kind, _scale(self.scale), _interval(self.interval), learned)
        if (isinstance(rule.scale, tuple) or learned) and self.kind not in RULES:
            raise ValueError(f"guidance: {self.kind!r} takes one scale for all samples, a number without gradients")
        object.__setattr__(self, "rule", rule)

    rule: Rule = field(init=False, repr=False)

    def combined(
        self, u: torch.Tensor, c: torch.Tensor, w: torch.Tensor | float, memory: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The guided answer of two answers (B, ...), in fp32 at least; w: a number, or (B, 1, ...). memory: of a run,
        at first empty, for rules that go from call to call."""
        wide = torch.promote_types(c.dtype, torch.float32)
        u, c = u.to(wide), c.to(wide)
        if c.ndim == 1:  # rules reduce over a sample's axes, and no axes at all are all of them to torch
            w = w[:, None] if isinstance(w, torch.Tensor) and w.ndim else w
            return self.combined(u[:, None], c[:, None], w, memory)[:, 0]
        more = {"memory": memory} if self.options.get("momentum") else {}
        return RULES[self.kind](u, c, w, **self.options, **more)

    def check_order(self, ordered: bool) -> None:
        """ValueError for a rule that goes from call to call where calls are not made in order."""
        if not ordered and self.options.get("momentum"):
            raise ValueError(
                "guidance: momentum goes from one call of a run to the next, which only runs with fixed steps, without "
                "parallel=, checkpoint= and a t_start of every sample, make in order; leave it out"
            )

    def weight(self, scales: Any, samples: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | float:
        """w for answers like ``like``: of the numbers ``scales``, one or one per row; or of the tensor that is learned,
        whose ``samples`` the rows are."""
        if self.rule.learned:
            w = self.scale if samples is None or not self.scale.ndim else self.scale[samples.to(self.scale.device)]
            w = w.to(like.device, torch.promote_types(like.dtype, torch.float32))
            return w.reshape(-1, *[1] * (like.ndim - 1)) if w.ndim else w
        return column(scales, like) if isinstance(scales, (list, np.ndarray)) else float(scales)

    def of_samples(self, samples: torch.Tensor) -> "Guidance":
        """The guidance of these samples of a batch, int64 (N,)."""
        scale = (
            torch.tensor(self.rule.scale, dtype=torch.float64)[samples]
            if isinstance(self.rule.scale, tuple)
            else self.scale
        )
        return replace(self, uncond=rows_of(self.other({}), samples), scale=scale)

    def other(self, conditions: Conditions) -> Conditions:
        """The conditions of the unconditional answer."""
        return {**conditions, **{name: as_rows(y, conditions.get(name)) for name, y in (self.uncond or {}).items()}}


def _check_options(kind: str, options: Any) -> None:
    if not isinstance(options, Mapping):
        raise TypeError(f"guidance: options must be a dictionary of numbers, not {options!r:.60}")
    known = {"rescale": {"rescale"}, "apg": {"eta", "threshold", "momentum"}}.get(kind, set())
    if unknown := sorted(map(str, options.keys() - known)):
        raise ValueError(f"guidance: options of {kind!r} are {sorted(known)}, not {unknown}")
    for name, value in options.items():
        if not isinstance(value, (int, float)) or not np.isfinite(value) or (name == "threshold" and value < 0):
            least = " of at least 0" if name == "threshold" else ""
            raise ValueError(f"guidance: {name} must be a finite number{least}, not {value!r:.60}")


def _scale(given: Any) -> float | tuple[float, ...] | Callable[[Array], Array]:
    if callable(given) and not isinstance(given, torch.Tensor):
        return given
    try:
        values = np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given)
        values = values.astype(np.float64, casting="same_kind")  # no complex numbers, no strings
    except (TypeError, ValueError):
        raise TypeError(f"guidance: scale must be a number, a tensor (B,) or a function, not {given!r:.60}") from None
    if values.ndim > 1 or not np.isfinite(values).all():
        raise ValueError(f"guidance: scale must be finite, a number or one per sample, not {given!r:.60}")
    return tuple(values.tolist()) if values.ndim else float(values)


def _interval(given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        raise ValueError(f"guidance: interval must be (lo, hi) in lam, not {given!r:.60}") from None
    if not low < high:
        raise ValueError(f"guidance: interval must be (lo, hi) in lam with lo < hi, not {given!r:.60}")
    return low, high
