"""Tables for few evaluations that go to no noise at all in one go, in place of an evaluation at the last level."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.bench.networks.perceptron import LEVELS
from logsnr.bench.universal import HELD_OUT, KINDS, OTHERS, Part, budgets_of
from logsnr.bench.unseen import RANGES
from logsnr.solvers.planners.multistep import Adams
from logsnr.solvers.runs.plans import _planned
from logsnr.solvers.tuning import universal
from logsnr.solvers.tuning.numbers import Numbers
from logsnr.solvers.tuning.serving import DataHints
from logsnr.solvers.tuning.stored import AT_ONCE, ENDS, MOST_AT_ONCE, SPANS, load
from logsnr.solvers.tuning.universal import Found, find_table

DDPM, SD = logsnr.Discrete(LEVELS.numpy()), RANGES["sd"]
OWN = [span for span in AT_ONCE if span not in SPANS]
NAMED = "dpm-2m", "dpm-3m", "deis-3", "unipc-2", "flow-2m", "dpmpp-2m"


def table_of(data: DataHints, sch: logsnr.Schedule, n: int) -> Found:
    found = find_table(data, sch, sch.t_start, sch.t_end, n)
    assert isinstance(found, Found)
    return found


@pytest.mark.parametrize("span", OWN)
@pytest.mark.parametrize("family", KINDS)
def test_every_family_has_them_but_guided_ones(span: str, family: str) -> None:
    """Their calls are at levels that networks of these levels know."""
    level = float(SD.half_logsnr(SD.last_level))
    fitted = [n for n in range(3, MOST_AT_ONCE + 2) if load(span, family, n)]
    assert list(map(str, fitted)) == budgets_of(span, family) == ([] if "guided" in family else ["3", "4", "5"])
    for n in fitted:
        table, _, _ = load(span, family, n) or pytest.fail("no table")
        assert (table.lam[0], table.lam[-1]) == ENDS[span]
        assert table.lam[-2] < level
        assert np.all(np.diff(table.lam) > 0)
        if family in ("pictures", "eps-pictures", "wide", "vast"):
            assert table.defect < 1e-9


@pytest.mark.parametrize(("span", "family", "n"), [("sd-clean", "narrow", 4), ("vp-clean", "eps-vectors", 5)])
def test_they_have_the_error_that_they_say(span: str, family: str, n: int) -> None:
    """On the problems that decided when their fits ended: no number of a table is another one."""
    table, order, told = load(span, family, n) or pytest.fail("no table")
    numbers = Numbers(table.gauge, order, table.lam)
    aim = Part.drawn(HELD_OUT, KINDS[family], ENDS[span], OTHERS).aim(numbers, 0.0)
    errors = aim.errors(numbers.numbers_of(table.weights))
    assert float(errors.median()) == pytest.approx(told["held-out median"], rel=1e-5)
    assert float(errors.square().mean().sqrt()) == pytest.approx(told["held-out rms"], rel=1e-5)


@pytest.mark.parametrize("sch", [DDPM, SD], ids=["ddpm", "sd"])
@pytest.mark.parametrize("eps", [False, True])
def test_up_to_five_evaluations_are_all_the_table_s(sch: logsnr.Schedule, eps: bool) -> None:
    """From six on the last one is at the last level; so it is for guided models from signal on."""
    data = DataHints(2.0, dimension=16, eps=eps)
    for n in (3, 4, 5, 6):
        found = table_of(data, sch, n)
        assert (len(found.table), found.end) == ((n, sch.t_end) if n <= MOST_AT_ONCE else (n - 1, sch.last_level))
    assert len(table_of(DataHints(2.0, guided=True), sch, 5).table) == 4


def test_levels_that_end_early_have_none() -> None:
    """A network that knows no level below sigma / alpha = 0.3 is not asked for one."""
    early = logsnr.Discrete(DDPM.alphas_cumprod[DDPM.alphas_cumprod < 1 / (1 + 0.3**2)])
    found = find_table(DataHints(2.0, dimension=16), early, early.t_start, early.t_end, 5)
    assert isinstance(found, str) or found.end != early.t_end


def test_runs_that_begin_late_have_none() -> None:
    """From sigma / alpha = 4 on Stable Diffusion's levels: with them, wide data had twice the error."""
    for sigma, calls in ((6.0, 5), (4.0, 4)):
        found = find_table(DataHints(7.0, dimension=64), SD, float(SD.time(-np.log(sigma))), SD.t_end, 5)
        assert isinstance(found, Found)
        assert len(found.table) == calls


@pytest.mark.parametrize("sch", [DDPM, SD], ids=["ddpm", "sd"])
@pytest.mark.parametrize("nfe", [3, 4, 5])
def test_errors_are_a_fraction_of_formulas(sch: logsnr.Schedule, nfe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a mixture that was not fitted to; with one of 3 or 4 evaluations at the last level they are larger."""
    g = np.random.default_rng(8)
    data = GaussianMixture(0.6 * g.normal(size=(6, 16)), g.uniform(0.02, 0.2, (6, 16)))
    den, x = data.denoiser(sch), logsnr.start(sch, (64, 16), seed=3, dtype=torch.float64)
    end = logsnr.sample(den, x, solver=Adams("x0", 4, corrector=True), steps=256)

    def error(name: str) -> float:
        found = logsnr.solve(den, x, solver=name, nfe=nfe)
        assert found.nfe == nfe
        known = float(sch.half_logsnr(sch.last_level))
        assert max(float(sch.half_logsnr(call.t)) for call in found.program.calls) <= known  # type: ignore[union-attr]
        return float((found.x - end).square().mean(1).sqrt().median())

    ours, named = error("auto"), min(map(error, NAMED))
    assert ours < 0.5 * named
    monkeypatch.setattr(universal, "MOST_AT_ONCE", 0)
    _planned.cache_clear()
    last = error("auto")
    _planned.cache_clear()
    assert last > (1.5 if nfe < 5 else 0.0) * ours
    assert last != ours
