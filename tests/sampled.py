"""Products of cases of which a part runs in `make test`, and all in `make test-all`."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def sampled(*axes: Iterable[Any], every: int) -> list[Any]:
    """The product of ``axes`` as cases for `parametrize`, of which one in ``every`` is not marked slow.

    Those are the cases whose places along the axes add up to a multiple of ``every``. Each value of each axis is in one
    of them, or this is an AssertionError, and two axes are met evenly: no value has more of the others than the next.
    """
    sides = [list(axis) for axis in axes]
    quick = [at for at in product(*(range(len(side)) for side in sides)) if sum(at) % every == 0]
    for k, side in enumerate(sides):
        assert len(sides) == 1 or {at[k] for at in quick} == set(range(len(side))), f"axis {k} is not covered"
    cases = []
    for at in product(*(range(len(side)) for side in sides)):
        values = [side[n] for side, n in zip(sides, at, strict=True)]
        marks = () if sum(at) % every == 0 else pytest.mark.slow
        cases.append(pytest.param(*values, marks=marks, id="-".join(str(getattr(v, "name", v)) for v in values)))
    return cases
