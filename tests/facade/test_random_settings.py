"""Random settings end in a finite answer or in a clear refusal; `python tests/random_settings.py` tries more."""

import pytest
from random_settings import fault


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_random_settings_run_or_are_refused(first: int) -> None:
    """No foreign exception, no infinity, no wrong shape; and most of them run."""
    ended = {n: fault(n) for n in range(first, first + 250)}
    assert {n: what for n, what in ended.items() if what not in ("ran", "refused")} == {}
    assert sum(what == "ran" for what in ended.values()) > 150
