"""Order conditions in exact fractions, and the checks of the constructor."""

from collections.abc import Iterator
from fractions import Fraction as F
from functools import cache
from math import prod

import pytest

from logsnr.solvers.planners.tableaux import DOPRI5, EULER, HEUN, RK4, Tableau, butcher, two_stage

Tree = tuple["Tree", ...]  # a rooted tree is the sorted tuple of its subtrees


@cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with ``order`` vertices."""
    if order == 1:
        return ((),)
    found = set()
    for first in range(1, order):
        for child in trees(first):
            for rest in trees(order - first):
                found.add(tuple(sorted((child, *rest))))
    return tuple(sorted(found))


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree))


def density(tree: Tree) -> int:
    return size(tree) * prod(map(density, tree))


def classical(tableau: Tableau) -> tuple[list[list[F]], list[F]]:
    """(A, b) of a classical tableau: entries are stored relative to their node."""
    rows = [[entry[0] * node for entry in row] for node, row in zip(tableau.nodes, tableau.rows, strict=True)]
    return [[], *rows[:-1]], rows[-1]


def residuals(tableau: Tableau, order: int) -> Iterator[F]:
    """``sum_i b_i Phi_i(tree) - 1/density`` for all trees of an order (Hairer, Norsett, Wanner II.2)."""
    A, b = classical(tableau)

    def phi(tree: Tree) -> list[F]:
        values = [F(1)] * len(b)
        for child in tree:
            inner = phi(child)
            values = [
                v * sum((a * x for a, x in zip(row, inner, strict=False)), F(0))
                for v, row in zip(values, A, strict=True)
            ]
        return values

    for tree in trees(order):
        yield sum((w * p for w, p in zip(b, phi(tree), strict=True)), F(0)) - F(1, density(tree))


@pytest.mark.parametrize("tableau", [EULER, HEUN, RK4, DOPRI5], ids=["euler", "heun", "rk4", "dopri5"])
def test_classical_order_conditions(tableau: Tableau) -> None:
    """Each classical tableau satisfies every condition up to its order exactly, and not all of the next."""
    assert all(r == 0 for order in range(1, tableau.order + 1) for r in residuals(tableau, order))
    assert any(r != 0 for r in residuals(tableau, tableau.order + 1))


def test_number_of_trees() -> None:
    """The tree generator finds the known numbers of rooted trees."""
    assert [len(trees(p)) for p in range(1, 7)] == [1, 1, 2, 4, 9, 20]


def test_mutant_fails_the_order_conditions() -> None:
    """A coefficient that is off by 1e-3 breaks a condition (its row still sums to its node)."""
    A, b = classical(RK4)
    A[2] = [A[2][0] + F(1, 1000), A[2][1] - F(1, 1000)]
    mutant = butcher(4, RK4.nodes[:-1], (*A[1:], b))
    assert any(r != 0 for order in (3, 4) for r in residuals(mutant, order))


def test_stages_stand_at_their_nodes() -> None:
    """Row sums of A are the nodes: torchdiffeq's gl4, whose two nodes are equal, could not be built."""
    with pytest.raises(ValueError, match="must sum to 1"):
        butcher(2, (F(1, 2),), ((F(1, 3),), (F(0), F(1))))


def test_bad_tableaux_are_refused() -> None:
    """Rows of the wrong length and a last node that is not 1 are errors at construction."""
    with pytest.raises(ValueError, match="must have 2 entries"):
        Tableau(2, (F(1, 2), 1), (((1,),), ((1,),)))
    with pytest.raises(ValueError, match="end in 1"):
        Tableau(1, (F(1, 2),), (((1,),),))
    with pytest.raises(ValueError, match="moment 1 must sum to 0"):
        Tableau(2, (1, 1), (((1,),), ((1, -1), (0, 2))))


@pytest.mark.parametrize("gamma", [F(1, 4), F(1, 2), F(1)])
def test_two_stage_family_in_the_classical_limit(gamma: F) -> None:
    """Without an exponential (h -> 0) DPM-Solver-2 is the two-stage family of order 2 for every gamma."""
    (w0, w1) = (entry[0] for entry in two_stage(gamma).rows[-1])
    assert w0 + w1 == 1
    assert w1 * gamma == F(1, 2)
