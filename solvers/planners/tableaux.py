"""Single-step methods as data: classical Runge-Kutta and exponential Runge-Kutta tableaux.

Over a step from s to t let ``theta = (u - u_s) / (u_t - u_s)`` be the fraction of the step in the variable u
(lam for exponential methods, t for classical ones) and ``M_k(c) = int_0^c theta^k dE`` the moments of the
gauge's clock up to the stage at ``theta = c``. A stage or the result is

    y = (mu / mu_s) x_s + mu sum_j ( sum_k a_jk M_k(c) ) N_j ,

so an entry of a tableau is the tuple ``(a_j0, a_j1, ...)``. A constant N must be integrated exactly:
``sum_j a_j0 = 1`` and ``sum_j a_jk = 0`` for k > 0, checked at construction.

Exponential methods of order 4 also take moments up to another stage than their own. In ``phi_j(c z)`` of the textbooks
(Hochbruck and Ostermann 2010, 2.3), for a kernel that is an exponential in u, ``M_k(c) = c^(k+1) k! phi_(k+1)(c z) h``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import factorial

Number = Fraction | float
Entry = tuple[Number, ...]
Phis = Mapping[tuple[int, Number], Number]  # {(j, c): coefficient of phi_j(c z)}


@dataclass(frozen=True)
class Tableau:
    """``nodes[i]`` and ``rows[i]``: the fraction at which stage i + 1 stands, and its entries over earlier N.

    The last node is 1, and its row gives the result. Stage 0 is the start of the step.
    borrowed: further weights (i, j, m, k, a): in row i, column j, a times the moment M_k of row m, as it is at the end
              of row i. They add up to 0 over j.
    along_t:  the nodes are fractions of the step in t; for tableaux of moment 0 alone.
    """

    order: int
    nodes: tuple[Number, ...]
    rows: tuple[tuple[Entry, ...], ...]
    borrowed: tuple[tuple[int, int, int, int, Number], ...] = ()
    along_t: bool = False

    def __post_init__(self) -> None:
        if len(self.nodes) != len(self.rows) or self.nodes[-1] != 1:
            raise ValueError(f"nodes must be one per row and end in 1, not {self.nodes}")
        for i, row in enumerate(self.rows):
            if len(row) != i + 1:
                raise ValueError(f"row {i} must have {i + 1} entries, not {len(row)}")
            for k in range(self.degree + 1):
                total = sum(float(entry[k]) for entry in row if len(entry) > k)
                if abs(total - (k == 0)) > 1e-14:
                    raise ValueError(f"row {i}: the entries of moment {k} must sum to {int(k == 0)}, not {total}")
        sums: dict[tuple[int, int, int], Number] = {}
        for i, j, m, k, a in self.borrowed:
            if not (j <= i < self.stages and m < self.stages):
                raise ValueError(f"borrowed weight {(i, j, m, k, a)} is outside the tableau")
            sums[i, m, k] = sums.get((i, m, k), 0) + a
        if any(sums.values()):
            raise ValueError(f"borrowed weights must sum to 0 over each row, not {sums}")
        if self.along_t and self.degree:
            raise ValueError("along_t is for tableaux whose entries are numbers")

    @property
    def stages(self) -> int:
        """Model evaluations per step."""
        return len(self.rows)

    @property
    def degree(self) -> int:
        """The highest moment."""
        own = max(len(entry) for row in self.rows for entry in row) - 1
        return max([own, *(k for _, _, _, k, _ in self.borrowed)])


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


def exponential(order: int, c: Sequence[Number], rows: Sequence[Sequence[Phis]]) -> Tableau:
    """An exponential tableau as textbooks print it: nodes c_2.., and for each of them and for the result the weights of
    stage 2 and on, ``a_ij`` and ``b_j``, in phi functions. The first column is what they leave of ``c_i phi_1(c_i z)``,
    so that a constant N is integrated exactly."""
    nodes = (*c, Fraction(1))
    entries, borrowed = [], []
    for i, (node, row) in enumerate(zip(nodes, rows, strict=True)):
        degree = max([j - 1 for phis in row for j, at in phis if at == node], default=0)
        own = [[Fraction(0)] * (degree + 1) for _ in range(i + 1)]
        own[0][0] = Fraction(1)
        for column, phis in enumerate(row, start=1):
            for (j, at), number in phis.items():
                a = Fraction(number) / (Fraction(at) ** j * factorial(j - 1))
                for place, share in ((column, a), (0, -a)):
                    if at == node:
                        own[place][j - 1] += share
                    else:
                        borrowed.append((i, place, nodes.index(at), j - 1, share))
        entries.append(tuple(map(tuple, own)))
    return Tableau(order, nodes, tuple(entries), tuple(borrowed))


def res_two_stage(c2: Number) -> Tableau:
    """The second-order method whose conditions hold for stiff problems too (Hochbruck and Ostermann 2005, 5.1; Zhang et
    al. 2023, RES): b_2 = phi_2 / c_2. Runge's for c_2 = 1/2, exponential Heun for 1."""
    return exponential(2, (c2,), ((), ({(2, 1): 1 / c2},)))


def res_three_stage(c2: Number, c3: Number) -> Tableau:
    """The third-order family of Hochbruck and Ostermann (2005, 5.9); RES takes c_2 = 1/2 and c_3 = 1."""
    gamma = c3 * (3 * c3 - 2) / (c2 * (2 - 3 * c2))  # 2 (gamma c_2 + c_3) = 3 (gamma c_2^2 + c_3^2)
    whole = gamma * c2 + c3
    a32 = {(2, c2): gamma * c2, (2, c3): c3 * c3 / c2}
    return exponential(3, (c2, c3), ((), (a32,), ({(2, 1): gamma / whole}, {(2, 1): 1 / whole})))


F = Fraction
DDIM = Tableau(1, (1,), (((1,),),))
DPM_2 = two_stage(F(1, 2))
DPM_3 = three_stage(F(1, 3), F(2, 3))
EXP_HEUN, RES_2, RES_3 = res_two_stage(F(1)), res_two_stage(F(1, 2)), res_three_stage(F(1, 2), F(1))

H = F(1, 2)
_KROGSTAD_END: tuple[Phis, ...] = (
    {(2, 1): F(2), (3, 1): F(-4)},
    {(2, 1): F(2), (3, 1): F(-4)},
    {(2, 1): F(-1), (3, 1): F(4)},
)
# Cox and Matthews (2002, eq. 26 to 29). phi_1(z/2) (e^(z/2) - 1) / 2 of their last stage is phi_1(z) - phi_1(z/2).
ETDRK4 = exponential(4, (H, H, F(1)), ((), ({(1, H): H},), ({}, {(1, H): F(1)}), _KROGSTAD_END))
# Krogstad (2005, eq. 51)
KROGSTAD = exponential(4, (H, H, F(1)), ((), ({(2, H): F(1)},), ({}, {(2, 1): F(2)}), _KROGSTAD_END))
# Hochbruck and Ostermann (2005, 5.19): the only one of these whose conditions of order 4 hold for stiff problems
_A42: Phis = {(2, 1): F(1)}
_A52: Phis = {(2, H): H, (3, 1): F(-1), (2, 1): F(1, 4), (3, H): -H}
_A54: Phis = {(2, H): F(1, 4) - H, (3, 1): F(1), (2, 1): F(-1, 4), (3, H): H}
HO4 = exponential(
    4, (H, H, F(1), H),
    ((), ({(2, H): F(1)},), (_A42, _A42), (_A52, _A52, _A54),
     ({}, {}, {(2, 1): F(-1), (3, 1): F(4)}, {(2, 1): F(4), (3, 1): F(-8)})),
)  # fmt: skip
STARTERS = {1: DDIM, 2: DPM_2, 3: DPM_3, 4: KROGSTAD}

EULER = butcher(1, (), ((F(1),),))
HEUN = butcher(2, (F(1),), ((F(1),), (F(1, 2), F(1, 2))))
RK4 = butcher(
    4,
    (F(1, 2), F(1, 2), F(1)),
    ((F(1, 2),), (F(0), F(1, 2)), (F(0), F(0), F(1)), (F(1, 6), F(1, 3), F(1, 3), F(1, 6))),
)
PRK = replace(RK4, along_t=True)  # the pseudo Runge-Kutta steps with which PNDM begins (Liu et al. 2022, eq. 13)
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
