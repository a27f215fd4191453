"""What a run costs and what a step costs are told apart; times themselves are not tested."""

import sys

import pytest

from logsnr.bench import guided, overhead
from logsnr.bench.command import run_command


@pytest.mark.parametrize(("name", "calls"), [("ddim", 20), ("heun", 40), ("rk4", 80)])
def test_run_and_step(name: str, calls: int) -> None:
    """Of runs that take 100 us and 3 us an evaluation, however many evaluations a step has."""
    few = overhead.calls_of(name, 20)
    assert calls - 4 < few <= calls
    times = overhead.Times(100 + 3 * few, 100 + 3 * overhead.calls_of(name, 120), 0, 0)
    assert overhead.run_and_step(name, times, 20) == pytest.approx((100, 3))


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One row a head, of the fastest of each time over the passes; a name that is unknown is one line."""
    slow, quick = overhead.Times(180, 560, 4000, 125), overhead.Times(160, 570, 5000, 100)
    passes = iter([slow, slow, quick, slow])  # of x0 and eps, twice
    monkeypatch.setattr(overhead, "measure", lambda *row: next(passes))
    monkeypatch.setattr(sys, "argv", ["overhead", "ddim", "--rounds", "2"])
    with pytest.raises(SystemExit) as ended:
        run_command(overhead.main)
    assert ended.value.code == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("ddim")]
    assert rows[0] == ["ddim", "x0", "80", "4.0", "200", "2.00"]
    assert rows[1] == ["ddim", "eps", "104", "3.8", "200", "1.60"]
    monkeypatch.setattr(sys, "argv", ["overhead", "ddimm"])
    with pytest.raises(SystemExit) as ended:
        run_command(overhead.main)
    assert ended.value.code == 2
    assert "did you mean 'ddim'" in capsys.readouterr().err


def test_guided_steps() -> None:
    """Every way is timed; a step of DDIM has three passes over memory, five with guidance."""
    assert guided.step_microseconds("ddim", (2, 3), 3, 1).keys() == set(guided.WAYS)
    assert guided.passes("ddim", 20) == pytest.approx(5 / 3)
