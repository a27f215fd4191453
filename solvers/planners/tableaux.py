"""Single-step methods as data: classical Runge-Kutta and exponential Runge-Kutta tableaux.

Over a step from s to t let ``theta = (u - u_s) / (u_t - u_s)`` be the fraction of the step in the variable u
(lam for exponential methods, t for classical ones) and ``M_k(c) = int_0^c theta^k dE`` the moments of the
gauge's clock up to the stage at ``theta = c``. A stage or the result is

    y = (mu / mu_s) x_s + mu sum_j ( sum_k a_jk M_k(c) ) N_j ,

so an entry of a tableau is the tuple ``(a_j0, a_j1, ...)``. A constant N must be integrated exactly:
``sum_j a_j0 = 1`` and ``sum_j a_jk = 0`` for k > 0, checked at construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

Number = Fraction | float
Entry = tuple[Number, ...]


@dataclass(frozen=True)
class Tableau:
    """``nodes[i]`` and ``rows[i]``: the fraction at which stage i + 1 stands, and its entries over earlier N.

    The last node is 1, and its row gives the result. Stage 0 is the start of the step. ``embedded``, if there is one,
    is another row over all stages: a result of one order less, by which adaptive steps are chosen (`pairs`).
    """

    order: int
    nodes: tuple[Number, ...]
    rows: tuple[tuple[Entry, ...], ...]
    embedded: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        if len(self.nodes) != len(self.rows) or self.nodes[-1] != 1:
            raise ValueError(f"nodes must be one per row and end in 1, not {self.nodes}")
        if self.embedded and len(self.embedded) != self.stages:
            raise ValueError(f"embedded must have {self.stages} entries, not {len(self.embedded)}")
        for i, row in enumerate(self.rows):
            if len(row) != i + 1:
                raise ValueError(f"row {i} must have {i + 1} entries, not {len(row)}")
        for i, row in enumerate((*self.rows, self.embedded) if self.embedded else self.rows):
            for k in range(self.degree + 1):
                total = sum(float(entry[k]) for entry in row if len(entry) > k)
                if abs(total - (k == 0)) > 1e-14:
                    raise ValueError(f"row {i}: the entries of moment {k} must sum to {int(k == 0)}, not {total}")

    @property
    def stages(self) -> int:
        """Model evaluations per step."""
        return len(self.rows)

    @property
    def degree(self) -> int:
        return max(len(entry) for row in self.rows for entry in row) - 1


def butcher(order: int, c: Sequence[Number], rows: Sequence[Sequence[Number]]) -> Tableau:
    """A classical tableau: nodes c_2.. and rows a_2.., the last row being b. There M_0(c) = c (E_t - E_s)."""
    nodes = (*c, 1)
    return Tableau(
        order,
        tuple(nodes),
        tuple(tuple((a / node,) for a in row) for node, row in zip(nodes, rows, strict=True)),
    )


def two_stage(gamma: Number) -> Tableau:
    """DPM-Solver-2 and 2S with its stage at ``theta = gamma`` in (0, 1] (Lu et al. 2022a, Algorithm 4; book
    Algorithms 5 and 6 for 1/2; gamma = 1 is EDM's Heun step)."""
    w = 1 / (2 * gamma)
    return Tableau(2, (gamma, 1), (((1,),), ((1 - w,), (w,))))


def three_stage(r1: Number, r2: Number) -> Tableau:
    """DPM-Solver-3 and 3S (Lu et al. 2022a, Algorithm 5): N is interpolated linearly, first through stage r1,
    then through stage r2. Third order needs r2 = 2/3."""
    return Tableau(
        3,
        (r1, r2, 1),
        (((1,),), ((1, -1 / r1), (0, 1 / r1)), ((1, -1 / r2), (0,), (0, 1 / r2))),
    )


F = Fraction
DDIM = Tableau(1, (1,), (((1,),),))
DPM_2 = two_stage(F(1, 2))
DPM_3 = three_stage(F(1, 3), F(2, 3))
STARTERS = {1: DDIM, 2: DPM_2, 3: DPM_3}
# DPM-Solver-12 and 23 (Lu et al. 2022a, appendix C): the lower order is DPM-Solver-1 and DPM-Solver-2 with r1 = 1/3.
DPM_12 = replace(DPM_2, embedded=((F(1),), ()))
DPM_23 = replace(DPM_3, embedded=(*two_stage(F(1, 3)).rows[-1], ()))

EULER = butcher(1, (), ((F(1),),))
HEUN = butcher(2, (F(1),), ((F(1),), (F(1, 2), F(1, 2))))
RK4 = butcher(
    4,
    (F(1, 2), F(1, 2), F(1)),
    ((F(1, 2),), (F(0), F(1, 2)), (F(0), F(0), F(1)), (F(1, 6), F(1, 3), F(1, 3), F(1, 6))),
)
# Dormand and Prince (1980), table 2; the seventh stage serves only the error estimate and is not evaluated.
DOPRI5 = butcher(
    5,
    (F(1, 5), F(3, 10), F(4, 5), F(8, 9), F(1)),
    (
        (F(1, 5),),
        (F(3, 40), F(9, 40)),
        (F(44, 45), F(-56, 15), F(32, 9)),
        (F(19372, 6561), F(-25360, 2187), F(64448, 6561), F(-212, 729)),
        (F(9017, 3168), F(-355, 33), F(46732, 5247), F(49, 176), F(-5103, 18656)),
        (F(35, 384), F(0), F(500, 1113), F(125, 192), F(-2187, 6784), F(11, 84)),
    ),
)
