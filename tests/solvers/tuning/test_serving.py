"""Which family of tables serves which data."""

import pytest

from logsnr.bench.unseen import RANGES
from logsnr.solvers.tuning.serving import DataHints
from logsnr.solvers.tuning.stored import FAMILY, SPANS, load
from logsnr.solvers.tuning.universal import find_table


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0, 4.5, 10.0, 100.0])
@pytest.mark.parametrize("dimension", [0, 1, 3, 64])
@pytest.mark.parametrize("span", SPANS)
def test_none_is_missing_from_3_to_40(span: str, dimension: int, width: float) -> None:
    for guided in (False, True) if width <= 4.0 else (False,):
        entries = {n: DataHints(width, 1.0, guided, dimension).served_by(n) for n in range(2, 42)}
        assert [n for n, entry in entries.items() if not entry or load(span, entry.family, n) is None] == [2, 41]


def test_the_last_evaluation_at_the_last_level_is_not_one_of_the_table() -> None:
    """So a run of 13 takes what serves 12, and one of 41 what serves 40."""
    sch = RANGES["sd"]
    for n, family in ((12, "pictures"), (13, "pictures"), (14, "narrow"), (41, "narrow")):
        found = find_table(DataHints(2.0), sch, sch.t_start, sch.t_end, n)
        assert not isinstance(found, str)
        assert (len(found.table), found.told[FAMILY]) == (n - 1, family)
    assert "none was made for 42" in str(find_table(DataHints(2.0), sch, sch.t_start, sch.t_end, 42))


def test_the_shape_says_the_dimension_and_the_width() -> None:
    """Points are numbers and vectors of up to three dimensions, if they are not wide."""
    for event, dimension, width, family in (
        ((), 1, 0.4, "points"), ((3,), 3, 0.4 * 3**0.5, "points"), ((4,), 4, 0.8, "narrow"),
        ((1, 8, 8), 0, 2.0, "pictures"), ((64,), 64, 3.2, "vectors"),
    ):  # fmt: skip
        hints = DataHints(data_std=0.49).suited(event, False, "x0")
        assert (hints.dimension, hints.usual_width) == (dimension, pytest.approx(width))
        assert hints.served_by(8).family == family  # type: ignore[union-attr]
    assert DataHints(2.0, dimension=2).served_by(8).family == "narrow"  # type: ignore[union-attr]
    assert DataHints(data_std=0.49).suited((1, 20, 20), False, "x0").served_by(8).family == "pictures"  # type: ignore[union-attr]
