"""Order conditions of exponential tableaux for stiff problems, in exact fractions."""

from collections.abc import Callable
from fractions import Fraction as F
from math import factorial

import pytest

from logsnr.solvers.planners.tableaux import (
    DPM_3,
    ETDRK4,
    EXP_HEUN,
    HO4,
    KROGSTAD,
    RES_2,
    RES_3,
    Tableau,
    exponential,
    res_three_stage,
)  # fmt: skip

TERMS = 16  # of every power series in z: far more than the rational functions of z and e^z here have free numbers
Series = list[F]


def moment(k: int, c: F) -> Series:
    """``M_k(c) / h = c^(k+1) k! phi_(k+1)(c z)``, whose series is sum_n c^(k+1+n) k! z^n / (n + k + 1)!."""
    return [c ** (k + 1 + n) * factorial(k) / F(factorial(n + k + 1)) for n in range(TERMS)]


def add(*parts: tuple[F, Series]) -> Series:
    return [sum((a * p[n] for a, p in parts), F(0)) for n in range(TERMS)]


def weights(tableau: Tableau) -> list[list[Series]]:
    """a_ij(z) of every stage, and b_j(z): the last row."""
    found = []
    for i, (c, row) in enumerate(zip(map(F, tableau.nodes), tableau.rows, strict=True)):
        parts = [[(F(a), moment(k, c)) for k, a in enumerate(entry)] for entry in row]
        for at, j, m, k, a in tableau.borrowed:
            if at == i:
                parts[j].append((F(a), moment(k, F(tableau.nodes[m]))))
        found.append([add(*part) for part in parts])
    return found


def defects(tableau: Tableau) -> dict[str, bool]:
    """Which conditions of Hochbruck and Ostermann (2005, Table 1) hold for every z; for products of functions of
    different operators, coefficient by coefficient. A method converges with order p if those below p hold, and those of
    p do in the weak form, with b_i(0) in place of b_i(z) (their Theorem 4.7)."""
    *a, b = weights(tableau)
    c = [F(0), *map(F, tableau.nodes[:-1])]
    zero = [F(0)] * TERMS

    def psi(j: int, i: int) -> Series:
        """``sum_k a_ik c_k^(j-1) / (j-1)! - c_i^j phi_j(c_i z)``; of the result (i = -1) with b."""
        row, node = (b, F(1)) if i < 0 else (a[i - 1] if i else [], c[i])
        powers = [(F(c[k]) ** (j - 1) / factorial(j - 1), w) for k, w in enumerate(row)]
        return add(*powers, (-F(1, factorial(j - 1)), moment(j - 1, node))) if row else zero

    def vanishes(j: int, left: list[Series], factor: Callable[[int], F] = lambda i: F(1)) -> bool:
        """``sum_i left_i(z1) factor_i psi_(j,i)(z2) = 0`` for all z1 and z2."""
        rights = [psi(j, i) for i in range(len(left))]
        pairs = ((m, n) for m in range(TERMS) for n in range(TERMS))
        sums = (sum((w[m] * factor(i) * r[n] for i, (w, r) in enumerate(zip(left, rights, strict=True))), F(0))
                for m, n in pairs)  # fmt: skip
        return not any(sums)

    at_zero = [[w[0], *zero[1:]] for w in b]
    padded = [[*row, *[zero] * (len(b) - len(row))] for row in a]
    inner = all(vanishes(2, row) for row, w in zip(padded, b[1:], strict=True) if any(w))  # enough, and so in HO4
    return {
        "2": psi(2, -1) == zero,
        "weak 3": psi(3, -1)[0] == 0 and vanishes(2, at_zero),
        "3": psi(3, -1) == zero and vanishes(2, b),
        "weak 4": psi(4, -1)[0] == 0 and vanishes(3, at_zero) and vanishes(2, at_zero, lambda i: c[i])
        and inner,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tableau", "held"),
    [
        (EXP_HEUN, ["2"]),
        (RES_2, ["2"]),
        (DPM_3, ["2", "weak 3"]),
        (RES_3, ["2", "weak 3"]),
        (ETDRK4, ["2"]),
        (KROGSTAD, ["2", "weak 3", "3"]),
        (HO4, ["2", "weak 3", "3", "weak 4"]),
    ],
    ids=["exp-heun", "res-2s", "dpm-3", "res-3s", "etdrk4", "krogstad", "ho4"],
)
def test_stiff_order_conditions(tableau: Tableau, held: list[str]) -> None:
    """As published: orders 2 and 3 of the RES methods, 2 of ETD-RK4, 3 of Krogstad's, and 4 of Hochbruck and
    Ostermann's alone."""
    assert [order for order, holds in defects(tableau).items() if holds] == held


@pytest.mark.parametrize("tableau", [DPM_3, RES_3, KROGSTAD, HO4], ids=["dpm-3", "res-3s", "krogstad", "ho4"])
def test_mutants_fail_the_conditions(tableau: Tableau) -> None:
    """A weight of the result that is off by 1e-3, in a way that integrates constants, loses order 2."""
    last = tableau.rows[-1]
    entry = [*(tuple(map(F, e)) for e in last)]
    entry[0] = (entry[0][0] + F(1, 1000), *entry[0][1:])
    entry[-1] = (entry[-1][0] - F(1, 1000), *entry[-1][1:])
    mutant = Tableau(tableau.order, tableau.nodes, (*tableau.rows[:-1], tuple(entry)), tableau.borrowed)
    assert not any(defects(mutant).values())


def test_a_stage_off_loses_order_3() -> None:
    """A stage of res-3s that stands right but uses another phi_2 keeps order 2 alone."""
    half = F(1, 2)
    good = {(2, half): F(2), (2, F(1)): F(2)}
    for a32, held in ((good, ["2", "weak 3"]), ({**good, (2, half): F(2) + F(1, 1000)}, ["2"])):
        tableau = exponential(3, (half, F(1)), ((), (a32,), ({(2, 1): F(4, 3)}, {(2, 1): F(1, 3)})))
        assert [order for order, holds in defects(tableau).items() if holds] == held


@pytest.mark.parametrize("c2", [F(1, 3), F(1, 2)])
def test_the_family_of_order_3(c2: F) -> None:
    """Every member satisfies the conditions; c_3 = 2/3 is DPM-Solver-3."""
    for c3 in (F(2, 3), F(3, 4), F(1)):
        assert defects(res_three_stage(c2, c3))["weak 3"]
    found, published = weights(res_three_stage(F(1, 3), F(2, 3))), weights(DPM_3)
    assert found == published


def test_bad_borrowed_weights_are_refused() -> None:
    """They must lie in the tableau and add up to 0; nodes along t are for tableaux of numbers."""
    with pytest.raises(ValueError, match="outside the tableau"):
        Tableau(1, (1,), (((1,),),), ((0, 1, 0, 0, 1),))
    with pytest.raises(ValueError, match="must sum to 0"):
        Tableau(1, (1,), (((1,),),), ((0, 0, 0, 0, 1),))
    with pytest.raises(ValueError, match="along_t is for tableaux whose entries are numbers"):
        Tableau(3, DPM_3.nodes, DPM_3.rows, along_t=True)
