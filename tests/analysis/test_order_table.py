"""docs/orders.md: every solver on every schedule has its order, with every head; mutants of each do not."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mutants import altered
from sampled import sampled

import logsnr
from logsnr.analysis.orders import two_gaussians
from logsnr.bench.orders import PROBLEM, measured, methods, nodes, schedules
from logsnr.solvers.denoisers import heads
from logsnr.solvers.denoisers.heads import HEADS, Level
from logsnr.solvers.programs.call import Call

DOCS = Path(__file__).parents[2] / "docs" / "orders.md"
SCHEDULES = schedules()
TOLERANCE = 0.1
SAME = 0.02  # two digits, and rounding: 1 % of dopri5's last error
ROUNDING = 1e-13  # by which the end states of the heads may differ: a few hundred roundings


@cache
def documented() -> dict[str, tuple[int, dict[str, float]]]:
    """solver -> declared order and the measured one by schedule, from the table of the docs."""
    rows: dict[str, tuple[int, dict[str, float]]] = {}
    lines = DOCS.read_text().splitlines()
    (head,) = (line for line in lines if line.startswith("| solver | declared |"))
    names = head.strip("| ").split(" | ")[2:]
    for line in lines:
        if found := re.match(r"\| `(.+)` \| (\d) \| (.+) \|$", line):
            assert found[1] not in rows
            rows[found[1]] = int(found[2]), dict(zip(names, map(float, found[3].split(" | ")), strict=True))
    return rows


@pytest.mark.parametrize(("method", "name"), sampled(methods(), SCHEDULES, every=9))  # one of each, beside test_orders
def test_last_slope_is_the_declared_order(method: logsnr.Solver, name: str) -> None:
    """The slope of the two finest runs above rounding is the declared order within 0.1, and what the docs say."""
    found, (_, told) = measured(method, SCHEDULES[name], "x0"), documented()[method.name]
    assert found.order == found.slopes[-1]
    assert found.order == pytest.approx(method.order, abs=TOLERANCE)
    assert told[name] == pytest.approx(found.order, abs=SAME)


def end_state(method: logsnr.Solver, name: str, head: str) -> torch.Tensor:
    """The end states of 5 steps from three states."""
    sch, x = SCHEDULES[name], torch.tensor([-1.5, 0.1, 1.0], dtype=torch.float64)
    den = PROBLEM.denoiser(sch, head)
    return logsnr.sample(den, x, solver=method, grid=nodes(sch, 5), startup="single-step")


@pytest.mark.parametrize(("method", "name"), sampled(methods(), SCHEDULES, every=9))
def test_every_head_ends_in_the_same_states(method: logsnr.Solver, name: str) -> None:
    """With each of the other heads the end states are those of x0 to rounding, so their order is."""
    expected = end_state(method, name, "x0")
    for head in set(HEADS) - {"x0"}:
        torch.testing.assert_close(end_state(method, name, head), expected, rtol=0, atol=ROUNDING)


def test_the_docs_are_complete() -> None:
    """docs/orders.md holds exactly the solvers, declared orders and schedules that there are, one line a solver."""
    rows = documented()
    assert list(rows) == [method.name for method in methods()]
    assert [order for order, _ in rows.values()] == [m.order for m in methods()]
    assert all(list(measured) == list(SCHEDULES) for _, measured in rows.values())


def test_every_schedule_family_is_measured() -> None:
    """The table has one schedule of each kind that the library offers."""
    offered = {n for n in dir(logsnr) if isinstance(getattr(logsnr, n), type)}
    offered = {n for n in offered if issubclass(getattr(logsnr, n), logsnr.Schedule)} - {"Schedule"}
    assert set(SCHEDULES) == offered


@pytest.mark.parametrize(("head", "name"), sampled(HEADS, SCHEDULES, every=3))
def test_mutant_of_a_head_fails(head: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose answer is converted with a factor off by 1e-3 loses the order on every schedule, and ends in
    other states."""
    expected, right = end_state(logsnr.solver("dpmpp-2m"), name, "x0"), heads.to_pair

    def off(head: str, level: Level) -> object:
        return tuple((a, 1.001 * b) for a, b in right(head, level))

    monkeypatch.setattr("logsnr.solvers.denoisers.answers.to_pair", off)
    mutant = replace(logsnr.solver("dpmpp-2m"), summary="a mutant")  # another plan than the right one's
    found = measured(mutant, SCHEDULES[name], head)
    assert not abs(found.order - mutant.order) <= TOLERANCE, found
    assert (end_state(mutant, name, head) - expected).abs().max() > 1e6 * ROUNDING


def off_by_a_thousandth(method: logsnr.Solver, column: int) -> logsnr.Solver:
    """The solver with entry ``column`` of what every call makes of the state times 1.001."""

    def change(call: Call) -> np.ndarray:
        matrix = np.array(call.matrix)
        matrix[0, column : column + 1] *= 1.001
        return matrix

    return altered(method, change)


MULTISTEP = ("ddim", "dpmpp-2m", "deis-2", "deis-rho-3", "dpmpp-3m", "deis-4", "deis-rho-4")
SINGLE_STEP = ("heun", "euler", "dpm-2", "dpmpp-3s", "rk4", "dopri5")


@pytest.mark.parametrize("name", sampled(MULTISTEP + SINGLE_STEP, every=3))
def test_mutant_of_a_coefficient_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both planners and each order: any one entry of the update that is off by 1e-3 loses the order."""
    method, sch = logsnr.solver(name), SCHEDULES["FlowMatching"]
    if method.order == 1:  # 32 steps of a right solver err by more than the mutant's 1e-3
        monkeypatch.setattr("logsnr.bench.orders.longest", lambda method: 512)
    elif method.order > 2:  # and of these already 16 by far less
        monkeypatch.setattr("logsnr.bench.orders.longest", lambda method: 32 * method.evaluations)
    last = max(method.program(sch, logsnr.grid(sch, 8, t_start=0.9, t_end=0.1)), key=lambda c: c.matrix.shape[1])
    columns = np.flatnonzero(last.matrix[0])
    assert len(columns) >= 2
    for column in columns.tolist():
        found = measured(off_by_a_thousandth(method, column), sch, "x0")
        assert not abs(found.order - method.order) <= TOLERANCE, (column, found)


def test_narrow_data_hide_order_5() -> None:
    """On the mixture of `two_gaussians` errors of dopri5 reach rounding before its slopes settle: hence a wider one."""
    method, sch = logsnr.solver("dopri5"), SCHEDULES["VPLinear"]
    assert not abs(measured(method, sch, "x0", two_gaussians()).order - method.order) <= TOLERANCE


@pytest.mark.parametrize("name", ["rk4", "dopri5"])
def test_mutant_of_a_table_hides_high_orders(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where derivatives at the entries come from two rises, not six, orders 4 and 5 cannot be read off a table."""
    monkeypatch.setattr("logsnr.solvers.schedules.splines.NEAREST", 2)
    method, sch = logsnr.solver(name), logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 999)))  # in no cache yet
    assert not abs(measured(method, sch, "x0").order - method.order) <= TOLERANCE
