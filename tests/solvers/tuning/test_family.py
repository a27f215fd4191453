"""One set of numbers for many budgets: tables between those that were fitted to, and what is refused."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers.tuning.family import Shared, Tables, some_of
from logsnr.solvers.tuning.numbers import adams_weights

F64 = torch.float64
SCH = logsnr.EDM(0.02, 20.0)
DEN = GaussianMixture(torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=F64), torch.tensor([[0.1, 0.3]] * 2)).denoiser(SCH)


def noise(count: int, seed: int) -> torch.Tensor:
    return logsnr.start(SCH, (count, 2), seed=seed, dtype=F64)


@pytest.fixture(scope="module")
def tables() -> Tables:
    found = logsnr.tune(DEN, noise(64, 0), range(4, 7, 2), solver="dpm-2m", iterations=5)
    assert isinstance(found, Tables)
    return found


@cache
def exact() -> torch.Tensor:
    return logsnr.sample(DEN, noise(128, 7), solver="dpm-3m", steps=400)


def errors(how: Any, **options: Any) -> float:
    return float((logsnr.sample(DEN, noise(128, 7), solver=how, **options) - exact()).square().mean(1).sqrt().median())


def test_budgets_that_were_not_fitted_to(tables: Tables) -> None:
    """Between two budgets the error is far below the start's, as at the budgets themselves."""
    assert list(tables) == [4, 6]
    assert torch.is_grad_enabled()  # whatever of the fit is still alive
    for n in (4, 5, 6):
        assert len(tables[n]) == n
        assert tables[n].provenance["fitted to evaluations"] == "4, 6"
        best = min(errors("dpm-2m", nfe=n, grid=kind) for kind in ("logsnr", "karras"))
        assert errors(tables[n]) < 0.5 * best, n
        assert logsnr.Program.from_json(tables[n].to_json()) == tables[n]
    with pytest.raises(KeyError, match="these tables serve 4 to 6 evaluations, not 7"):
        tables[7]


@pytest.mark.parametrize("gauge", ["eps", "x0"])
def test_no_numbers_are_the_adams_method(gauge: str) -> None:
    """Whatever the budget, q = 0 is the start, and the size is the same."""
    sizes = set()
    for n in (2, 5, 9):
        lam = np.linspace(-3.0, 4.0, n + 1)
        numbers = Shared(gauge, 3, lam)
        found, _, weights = numbers.weights(torch.zeros(numbers.size, dtype=F64))
        torch.testing.assert_close(found, torch.tensor(lam), rtol=0, atol=1e-12)
        torch.testing.assert_close(weights, adams_weights(torch.tensor(lam), gauge, 3), rtol=1e-10, atol=1e-10)
        sizes.add(numbers.size)
    assert len(sizes) == 1


def test_corrections_are_functions_of_the_fraction_of_the_run() -> None:
    """At the last step they are those of every budget, but for what goes with one over it, and that is nothing at 8
    evaluations."""
    maps = {n: Shared("x0", 2, np.linspace(-3.0, 4.0, n + 1)) for n in (5, 8, 15)}
    rows = {n: numbers.map[-1] for n, numbers in maps.items()}  # of the answer before the newest
    kept, scaled = slice(10, 15), slice(15, 20)  # after the grid's 10: degrees 0 to 4, and those times 8 / n - 1
    for n in (5, 15):
        torch.testing.assert_close(rows[n][kept], rows[8][kept])
        torch.testing.assert_close(rows[n][scaled], (8 / n - 1) * rows[8][kept])
    assert not rows[8][scaled].any()


def test_tables_are_consistent_and_look_back_three_steps() -> None:
    numbers = Shared("eps", 3, np.linspace(-2.9, 3.9, 11))
    q = torch.linspace(-0.1, 0.1, numbers.size, dtype=F64)
    table = numbers.fitted(q)
    assert table.defect < 1e-12
    np.testing.assert_array_equal(table.weights[:, 0], 1)
    assert table.kept == 3
    assert max(len(call.reads) for call in table.program(SCH, "shared").calls) == 1 + 3


def test_some_of_many_budgets() -> None:
    assert some_of(list(range(4, 21))) == [4, 7, 12, 20]
    assert some_of([6, 5]) == [5, 6]


def test_what_is_refused() -> None:
    for options, match in (
        ({"nfe": 8}, "not for nfe"),
        ({"nfe": [4, 6], "told": True}, "not for told times"),
        ({"rounds": [3, 4]}, "not for rounds"),
    ):
        with pytest.raises(ValueError, match=match):
            logsnr.tune(DEN, noise(64, 0), smooth=True, **options)
    with pytest.raises(TypeError, match="smooth must be True or False"):
        logsnr.tune(DEN, noise(64, 0), [4, 6], smooth=1)  # type: ignore[arg-type]
