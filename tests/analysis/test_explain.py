"""The explanation of a solver: the table it prints and the equalities it finds."""

import re
import sys

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis.explain import affine_map, explain
from logsnr.analysis.stability import stability
from logsnr.solvers.planners.multistep import Startup

SCH = logsnr.VPLinear()
STARTS: tuple[Startup, ...] = ("ramp", "single-step")


@pytest.fixture
def two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """To plan all solvers, for the line of equal names, would take longer than all else."""
    monkeypatch.setattr(sys.modules[explain.__module__], "solver_names", lambda: ["ddim", "deis-1"])


def test_equalities_are_found_in_the_tables() -> None:
    """DDIM's other names are found, and solvers that differ are not named."""
    found = explain("ddim", SCH, logsnr.grid(SCH, 6))
    assert set(found.equals) == {"deis-1", "deis-rho-1", "lms-1", "ipndm-1", "dpm-1", "dpmpp-1"}
    assert explain("dpmpp-2m", SCH, logsnr.grid(SCH, 6)).equals == ()


@pytest.mark.usefixtures("two_names")
def test_steps_lay_a_grid_by_its_name() -> None:
    sch = logsnr.VPLinear()
    assert explain("ddim", steps=3) == explain("ddim", sch, logsnr.grid(sch, 3))
    assert explain("ddim", sch, "karras").program.grid == tuple(logsnr.grid(sch, 5, "karras"))
    with pytest.raises(ValueError, match="steps = 2 is for grids by their name; this one has 3"):
        explain("ddim", sch, logsnr.grid(sch, 3), steps=2)
    with pytest.raises(ValueError, match="at most 1000"):
        explain("ddim", steps=10**7)


def test_schedules_decide_what_is_equal() -> None:
    """Euler is DDIM where alpha and sigma are affine in t, and only there (book, Observation 9.2.1 corrected)."""
    for sch, equal in ((logsnr.EDM(), True), (logsnr.FlowMatching(), True), (SCH, False)):
        assert ("ddim" in explain("euler", sch, logsnr.grid(sch, 4)).equals) is equal


def test_the_text_holds_table_order_cost_and_weights() -> None:
    """The printed explanation shows the program, its notes and the extrapolation of its weights."""
    text = str(explain("dpmpp-3m", SCH, logsnr.grid(SCH, 5)))
    assert "order 3, 5 steps, 5 model evaluations" in text
    assert "the ramp start limits the global order to 2" in text
    assert "no other named solver" in text


def test_affine_map_is_what_the_executor_does() -> None:
    """The rows of the affine map are the states that the model sees in a real run, for any answers."""
    program = logsnr.solver("dpmpp-3s").program(SCH, logsnr.grid(SCH, 2))
    times, rows = affine_map(program, SCH)
    answers = np.random.default_rng(0).normal(size=len(program))
    seen: list[float] = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(float(x[0, 0]))
        return torch.full_like(x, answers[len(seen) - 1])

    den = logsnr.Denoiser(model, SCH, "x0", dtype=torch.float64)
    end = logsnr.sample(den, torch.full((1, 1), 0.7, dtype=torch.float64), solver="dpmpp-3s", steps=2)
    want = rows @ np.array([0.7, *answers])
    np.testing.assert_allclose([*seen, float(end)], want, rtol=1e-12)
    assert list(times) == [call.t for call in program]


@pytest.mark.usefixtures("two_names")
def test_weights_of_one_step() -> None:
    """Positive weights sum to 1 in every gauge; those of LMS for equal steps in sigma, 3/2 and -1/2, to 2."""
    for name in ("heun", "rk4", "dpm-2", "ddim"):
        assert explain(name, SCH, logsnr.grid(SCH, 5)).weights == pytest.approx(1.0, rel=1e-9)
    equal = np.asarray(SCH.time(-np.log(np.linspace(5.0, 1.0, 5))))
    assert explain("deis-rho-2", SCH, equal).weights == pytest.approx(2.0, rel=1e-9)


@pytest.mark.usefixtures("two_names")
def test_stability_is_told_of_the_step_and_of_the_grid() -> None:
    """The stable step is the first at which a mode grows, and a longer step of the grid is said to be one."""
    for name in ("heun", "dpm-2", "dpmpp-3m"):
        found = explain(name, SCH, logsnr.grid(SCH, 2))
        assert stability(name, steps=[found.stable_step]).limit > 0
        assert stability(name, steps=[1.02 * found.stable_step]).limit == 0
        lam = SCH.half_logsnr(logsnr.grid(SCH, 2))
        assert found.longest_step == pytest.approx(np.diff(lam).max(), rel=1e-12)
        assert (found.growth > 1) is (found.longest_step > found.stable_step)
        assert ("modes grow up to" in " ".join(str(found).split())) is (found.growth > 1)
    assert "up to 20, the longest tried" in " ".join(str(explain("ddim", SCH, logsnr.grid(SCH, 2))).split())
    whole = explain("dpm-2", logsnr.FlowMatching(), logsnr.grid(logsnr.FlowMatching(), 2))
    assert "all steps of this grid start or end at an infinite lam" in " ".join(str(whole).split())


@pytest.mark.parametrize("name", sampled([n for n in logsnr.solver_names() if logsnr.solver(n).planner], every=6))
@pytest.mark.usefixtures("two_names")
def test_the_text_fits_80_columns(name: str) -> None:
    """No line of an explanation is longer than a terminal of 80 columns."""
    grid = logsnr.grid(SCH, 12)
    starts = {logsnr.solver(name).program(SCH, grid, startup=start): start for start in STARTS}  # most have one
    for startup in starts.values():
        text = str(explain(name, SCH, grid, startup=startup))
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", ["dpmpp-3m", "deis-4", "dpm-3", "dopri5"])
def test_the_printed_table_is_the_solver(name: str) -> None:
    """Carried out by hand, line by line, the printed table makes of any answers what the program makes of them."""
    program = logsnr.solver(name).program(SCH, logsnr.grid(SCH, 5), startup="single-step")
    rows = affine_map(program, SCH)[1]
    text = re.sub(r"\n {37}", " ", str(program))
    answers = np.random.default_rng(0).normal(size=len(program))
    values, call = {"x": 0.7}, -1
    for line in text.splitlines():
        if not (found := re.fullmatch(r"(?: *(\d+)  t = (\S+) +model\((\w+)\))? *(\w+) <- (.*)", line)):
            continue
        if found[1]:
            call, t, seen = int(found[1]), program.calls[int(found[1])].t, values[found[3]]
            assert float(found[2]) == pytest.approx(t, rel=1e-5)
            x0 = answers[call]
            values |= {"x0": x0, "eps": (seen - SCH.alpha(t) * x0) / SCH.sigma(t)}
            values |= {f"{head}[{call}]": values[head] for head in ("x0", "eps")}
            before = dict(values)
        terms = re.findall(r"(\S+) (\S+)", found[5])
        values[found[4]] = sum(float(number) * before[of] for number, of in terms)
    want = rows[-1] @ np.array([0.7, *answers])
    assert call == len(program) - 1
    assert values["x"] == pytest.approx(want, rel=1e-3)


def test_programs_that_other_solvers_do_not_have() -> None:
    """An encoding is explained though stochastic solvers refuse it, and a churn without room for a jump has no stable
    step either."""
    back = explain("ddim", SCH, logsnr.grid(SCH, 4)[::-1].copy())
    assert "deis-1" in back.equals
    assert not set(back.equals) & {name for name in logsnr.solver_names() if logsnr.solver(name).stochastic}
    one = explain("edm-churn", SCH, logsnr.grid(SCH, 1))
    assert np.isnan([one.stable_step, one.growth]).all()
