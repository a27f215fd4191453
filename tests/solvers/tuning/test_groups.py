"""Corrections of a fitted table for groups of elements."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers.bases import DCT
from logsnr.solvers.tuning.fit import fit
from logsnr.solvers.tuning.groups import Grouped, Groups
from logsnr.solvers.tuning.numbers import Numbers

F64 = torch.float64
SCH = logsnr.EDM(0.02, 20.0)
STDS = torch.logspace(-1.5, 0.5, 16, dtype=F64).reshape(2, 2, 4)
START = {"solver": "dpm-2m", "iterations": 8}
DEN = logsnr.Denoiser(
    lambda x, t: STDS**2 / (STDS**2 + t.reshape(-1, 1, 1, 1) ** 2) * x,  # of a Gaussian with these spreads
    SCH, "x0",
)  # fmt: skip


def noise(count: int, seed: int) -> torch.Tensor:
    return logsnr.start(SCH, (count, 2, 2, 4), seed=seed, dtype=F64)


def error(program: logsnr.Program) -> float:
    """Beside the closed form of the PF-ODE: every element keeps its place in its own spread."""
    x = noise(100, 3)
    end = x * torch.sqrt((STDS**2 + 0.02**2) / (STDS**2 + 20.0**2))
    return float((logsnr.sample(DEN, x, solver=program) - end).flatten(1).square().mean(1).sqrt().median())


def tuned(each: Any) -> logsnr.Program:
    found = logsnr.tune(DEN, noise(64, 0), 3, each=each, **START)  # type: ignore[arg-type]
    assert isinstance(found, logsnr.Program)
    return found


def test_each_element_of_a_gaussian_is_solved_exactly() -> None:
    """A linear problem for each has more numbers than it needs; one table for all 16 has not."""
    with pytest.warns(UserWarning, match="the reference is no better than the table"):
        program = tuned("element")
    assert error(program) < 1e-5 * error(tuned(None))
    assert logsnr.Program.from_json(program.to_json()) == program
    told = program.provenance
    assert told["each"] == "element, 16 groups"
    assert float(told["held-out median"]) < float(told["median of one table for all"]) < float(told["start's median"])


@pytest.mark.parametrize("each", ["channel", "band", np.arange(16).reshape(2, 2, 4) // 8 * 3])
def test_groups_pay_where_their_elements_differ(each: Any) -> None:
    program = tuned(each)
    assert error(program) == pytest.approx(float(program.provenance["held-out median"]), rel=0.3)
    assert program.basis == (DCT(2) if isinstance(each, str) and each == "band" else None)
    if not (isinstance(each, str) and each == "band"):
        assert error(program) < 0.8 * error(tuned(None))


def test_labels() -> None:
    band, channel, element = (Groups(each, (2, 2, 4)) for each in ("band", "channel", "element"))
    assert band.labels[0].tolist() == [[0, 1, 2, 2], [1, 1, 2, 2]]  # octaves of the higher frequency
    assert torch.equal(band.labels[0], band.labels[1])
    assert channel.labels.unique_consecutive().tolist() == [0, 1]
    assert element.count == 16
    assert Groups([5, 2, 5], (3,)).labels.tolist() == [1, 0, 1]


def test_no_corrections_are_the_table() -> None:
    """And their derivatives are those of the runs."""
    numbers = Numbers("eps", 2, np.linspace(-3.0, 4.0, 5), consistent=True)
    q = torch.linspace(-0.2, 0.2, numbers.size, dtype=F64)
    grouped = Grouped(numbers, q, Groups([0, 1, 1], (3,)))
    zero = torch.zeros(grouped.size, dtype=F64)
    torch.testing.assert_close(grouped(zero).matrix, numbers(q).matrix[..., None].expand(-1, -1, 2))
    assert grouped(zero).row(1).shape == (5, 3)
    slopes = grouped.tangents(zero)[1]
    move = torch.linspace(-1e-3, 1e-3, grouped.size, dtype=F64)
    ahead, back = grouped(move), grouped(-move)
    for one, other, slope in zip(ahead[:3], back[:3], slopes[:3], strict=True):
        torch.testing.assert_close((one - other) / 2, slope @ move, rtol=1e-4, atol=1e-8)
    assert grouped.fitted(move).defect < 1e-12


def test_corrections_that_do_not_pay_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_only(aims: Any, **options: Any) -> Iterator[Any]:
        yield from islice(fit(aims, **options), 1 if isinstance(aims[0].numbers, Grouped) else None)

    monkeypatch.setattr("logsnr.solvers.tuning.job.fit", first_only)
    with pytest.warns(UserWarning, match="corrections of each channel are no better on held-out noise"):
        program = tuned("channel")
    assert "each" not in program.provenance
    assert program.event == ()


@pytest.mark.parametrize(
    ("each", "options", "match"),
    [
        ("row", {}, "must be one of channel, band, element"),
        ([0, 1], {}, "integers of the samples' shape"),
        (np.zeros((2, 2, 4)), {}, "integers of the samples' shape"),
        ("channel", {"smooth": True, "nfe": [3, 4]}, "one budget a fit, without smooth="),
        ("channel", {"nfe": None, "rounds": 2}, "without smooth=, scales= and rounds="),
        ("element", {"nfe": 30}, "16 groups, and 6960 numbers to fit with this budget, more than 4096"),
    ],
)
def test_what_is_refused(each: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        logsnr.tune(DEN, noise(64, 0), each=each, **{"nfe": 3, **options})


def test_one_dimension_has_no_channels() -> None:
    with pytest.raises(ValueError, match=r"with channels, and these are of shape \(16,\)"):
        Groups("channel", (16,))
