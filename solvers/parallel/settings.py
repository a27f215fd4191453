"""The settings of a parallel run."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..planners.checks import count, flag, number

Init = Literal["straight", "constant"]


@dataclass(frozen=True)
class Rounds:
    """How `solve` asks at once for calls that do not need each other's answers, those of `Program.rounds`.

    The answer is that of the sequential run: bit for bit, of models whose answers for a sample do not depend on the
    batch, and to rounding where guidance is among the program's columns. Programs have several calls in a round if they
    are made so, as those of ``logsnr.tune(rounds=)``; others run as they do, one call after the other. The model is
    given samples times calls of the round as rows; the denoiser's conditions follow their samples, those in a closure
    do not.
    """


@dataclass(frozen=True)
class Picard:
    """How `solve` runs parallel in time.

    window:     how many calls are evaluated at once; None for all. More take fewer rounds and more evaluations.
    tol:        a node is accepted when a sweep changes it by no more than this, relative to its norm: along the flow
                of Gaussian data distances grow as states do, so that a change is worth the same wherever it happens,
                and the answer is about as far from the sequential one, most often less. With 0 a node is accepted
                when it no longer changes at all: bit for bit the sequential answer, in at most as many rounds as
                there are calls, of models whose answers for a sample do not depend on the batch. To rounding where
                guidance is columns of the sequential program: "cfg" with one scale for all, without gradients to it.
    accelerate: "secant": each node's model is followed along the line of its last two values; None: x0 is frozen.
    init:       what nodes that nothing is known of are taken to be: "straight", on the line on which (x0, eps) stay
                what they are at the last node that is known, to which noise is added; or "constant", that node.
    batch:      the most nodes, of all samples together, that the model is given in one call; None for no limit. A
                round with more takes several calls.
    ranks:      share the nodes of every round among the ranks of torch.distributed's default group, which must all call
                `solve` with the same arguments, a seed included; each gets the answer. A rank that is lost ends the
                others with the error that the group gives, at its timeout at the latest.

    The model is asked for all nodes of a round at once: rows are samples times calls of the window, and fewer as
    samples converge. The denoiser's conditions follow their samples; those in a closure do not.
    Raises ValueError for numbers out of range and unknown names.
    """

    window: int | None = None
    tol: float = 1e-3
    accelerate: Literal["secant"] | None = "secant"
    init: Init = "straight"
    batch: int | None = None
    ranks: bool = False

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("batch", self.batch)):
            if value is not None:
                count(name, value)
        number("tol", self.tol, 0.0, 1.0, "a number from 0 to 1")
        if self.accelerate not in (None, "secant"):
            raise ValueError(f"accelerate = {self.accelerate!r} must be 'secant' or None")
        if self.init not in get_args(Init):
            raise ValueError(f"init = {self.init!r} must be 'straight' or 'constant'")
        flag("ranks", self.ranks)
