"""How long the next step is: a PI controller of the step in lam, for every sample by itself."""

from dataclasses import dataclass, field

import numpy as np
import torch

from ..arrays import Array, Indices, Mask
from ..finite import named

SAFETY, SHRINK, GROW = 0.8, 0.2, 5.0  # factors of a step, as in Hairer, Norsett and Wanner (1993), II.4
INTEGRAL, PROPORTIONAL = 0.7, 0.4  # over the exponent k of the error h^k, as in Gustafsson (1991)
# What a step may add is estimated for the worse result of a pair, and the run goes on from the better one. So an
# estimate of several tolerances is let pass: the end is then within about one, on mixtures, Gaussians and digits.
PASSED = 4.0
FIRST = 2.0  # the first step is this times tolerance^(1 / k)
FLOOR = 1e-9  # the shortest step, relative to 1 + |lam|
MOST = 10_000  # steps, accepted or not


@dataclass
class Control:
    """Arrays (B,): the size of the next step, of its last error in tolerances, and what has been decided.

    Raises RuntimeError for samples that cannot meet the tolerances, with what they have reached.
    """

    name: str
    rtol: float
    atol: float
    size: Array
    accepted: Indices = field(init=False)
    rejected: Indices = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.size)
        self.accepted, self.rejected = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.before, self.refused = np.ones(n), np.zeros(n, dtype=bool)

    @classmethod
    def start(cls, name: str, rtol: float, atol: float, exponent: Array) -> "Control":
        return cls(name, rtol, atol, FIRST * (rtol + atol) ** (1 / exponent))

    def norm(self, error: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Array:
        """(B,): the estimated errors of steps from x to y, in what is allowed."""
        norms = error_norm(error, x, y, self.rtol, self.atol) / PASSED
        return norms.cpu().numpy().astype(np.float64)

    def decide(self, rows: Indices, error: Array, tried: Array, exponent: Array) -> Mask:
        """Whether the steps ``tried`` of the samples ``rows`` are accepted, (n,); their next sizes are set.

        error: (n,), in tolerances; NaN and infinity count as too much. exponent: k of the error h^k.
        """
        good: Mask = error <= 1
        size = np.where(np.isfinite(error), np.clip(error, 1e-8, 1e8), 1e8)
        rate = np.where(self.refused[rows], 1.0, INTEGRAL)  # after a rejection the error before tells nothing
        smooth = np.where(self.refused[rows], 1.0, self.before[rows] ** (PROPORTIONAL / exponent))
        grown = np.clip(SAFETY * size ** (-rate / exponent) * smooth, SHRINK, np.where(self.refused[rows], 1.0, GROW))
        shrunk = np.clip(SAFETY * size ** (-1 / exponent), SHRINK, SAFETY)
        # a step cut short by the end of its span says little of what a longer one could be
        self.size[rows] = np.where(
            good, np.maximum(tried * grown, np.where(grown >= 1, self.size[rows], 0)), tried * shrunk
        )
        self.before[rows] = np.where(good, size, self.before[rows])
        self.refused[rows] = ~good
        self.accepted[rows] += good
        self.rejected[rows] += ~good
        return good

    def check(self, rows: Indices, lam: Array, t: Array, error: Array) -> None:
        """RuntimeError if a sample of ``rows`` at lam and t (n,) is out of steps or its steps are too short."""
        short = self.size[rows] < FLOOR * (1 + np.abs(lam))
        late = self.accepted[rows] + self.rejected[rows] >= MOST
        if not (short | late).any():
            return
        i = int(np.argmax(short | late))
        why = f"after {MOST} steps" if late[i] else f"its steps have shrunk to {self.size[rows][i]:.2g} in lam"
        raise RuntimeError(
            f"{self.name} cannot meet rtol = {self.rtol}, atol = {self.atol}"
            f"{named(rows[short | late].tolist(), len(self.size), hint=False)}: {why}, sample {rows[i]} stands at "
            f"t = {t[i]:.6g}, lam = {lam[i]:.6g}, and the last error was {error[i]:.3g} tolerances; ask for less"
        )


def error_norm(error: torch.Tensor, x: torch.Tensor, y: torch.Tensor, rtol: float, atol: float) -> torch.Tensor:
    """(B,): the root mean square of ``error`` over atol + rtol max(|x|, |y|), of every sample by itself.

    Sums are folded: half of the elements is added to the other half. No shape of the batch changes their order, as that
    of torch's own sums does.
    """
    scale = atol + rtol * torch.maximum(x.detach().abs(), y.detach().abs())
    squares = (error.detach() / scale).square().reshape(len(x), -1)
    elements = squares.shape[1]
    while (n := squares.shape[1]) > 1:
        half = (n + 1) // 2
        folded = squares[:, :half].clone()
        folded[:, : n - half] += squares[:, half:]
        squares = folded
    return (squares[:, 0] / elements).sqrt()
