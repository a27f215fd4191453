"""Universal tables between other ends than their own."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from unseen_data import median, unseen

import logsnr
from logsnr.bench.universal import BUDGETS
from logsnr.integrations.schedulers.tables import discrete, table_of
from logsnr.solvers import Adams
from logsnr.solvers.tuning.ends import moved
from logsnr.solvers.tuning.stored import SPANS, load
from logsnr.solvers.tuning.table import Fitted
from logsnr.solvers.tuning.universal import MOVED, Universal

EDM = logsnr.EDM(0.002, 80.0)
COSINE = discrete(table_of({"beta_schedule": "squaredcos_cap_v2"}))


def test_ends_move_a_little() -> None:
    """From sigma 100 to 0.0025 it is still far better than the method that it corrects."""
    data, sch = unseen(), logsnr.EDM(0.0025, 100.0)
    x = logsnr.start(sch, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(sch), x, solver=Adams("x0", 4, corrector=True), steps=256)
    plain, table = (
        median(data.denoiser(sch), end, x, solver=s, nfe=8) for s in (Adams("eps", 3), Universal(width=2.0))
    )
    assert table < 0.3 * plain


@pytest.mark.parametrize("nfe", [6, 10])
@pytest.mark.parametrize(
    ("sch", "options"),
    [
        (logsnr.VPCosine(), {}), (COSINE, {}), (logsnr.EDM(0.002, 700.0), {}),
        (logsnr.FlowMatching(), {"t_end": 1e-3}), (logsnr.EDM(0.01, 50.0), {}),
    ],
    ids=["cosine", "a table of it", "sigma from 700", "flow to 0.001", "sigma 50 to 0.01"],
)  # fmt: skip
def test_one_begins_in_any_noise(sch: logsnr.Schedule, options: dict[str, float], nfe: int) -> None:
    """On ranges that no table was made for, where formulas have 0.4 to 1.2 of the error of the best named solver."""
    den = unseen().denoiser(sch)
    x = logsnr.start(sch, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(den, x, solver=Adams("x0", 4, corrector=True), steps=256, **options)
    named = min(
        median(den, end, x, solver=name, nfe=nfe, grid=grid, **options)
        for name in ("dpm-2m", "dpm-3m", "dpmpp-2m", "deis-2") for grid in ("logsnr", "karras", "time")
    )  # fmt: skip
    assert median(den, end, x, solver="universal", nfe=nfe, **options) < (0.5 if nfe == 6 else 0.25) * named


@pytest.mark.parametrize("later", [-math.inf, -3.0, 0.5])
@pytest.mark.parametrize("nfe", [3, 8, 20])
@pytest.mark.parametrize("span", ["edm", "vp", "sd"])
def test_another_start_in_noise_changes_nothing_but_the_noise(span: str, nfe: int, later: float) -> None:
    """Data that are one point say the same of noise at any level, so that the results are equal, whatever the table
    makes of them; with the first step as it was they are not."""
    sch, (low, high) = logsnr.Trigonometric(), SPANS[span]
    table, order, _ = load(span, "narrow", nfe) or pytest.fail("no table")
    z, point = logsnr.randn((4, 3), seed=0, dtype=torch.float64), 0.7
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, point), sch, "x0")
    shift = later if later < 0 else later * float(table.lam[1] - low)

    def result(fitted: Fitted, first: float) -> torch.Tensor:
        ends = float(sch.time(first)), float(sch.time(high))
        alpha, sigma = float(sch.alpha(ends[0])), float(sch.sigma(ends[0]))
        return logsnr.sample(den, alpha * point + sigma * z, solver=fitted.program(sch, "table", ends=ends))

    own, found = result(table, low), moved(table, order, low + shift, high, True)
    torch.testing.assert_close(result(found, low + shift), own, rtol=1e-9, atol=1e-9)
    wrong = replace(found, weights=np.concatenate([table.weights[:1], found.weights[1:]]))
    assert (result(wrong, low + shift) - own).abs().max() > 1e-3


@pytest.mark.parametrize("in_noise", [False, True])
@pytest.mark.parametrize("family", BUDGETS)
@pytest.mark.parametrize("span", SPANS)
def test_nodes_keep_their_order_wherever_the_ends_are(span: str, family: str, in_noise: bool) -> None:
    """Tables of many steps have steps far shorter than ends may move: only moving the ends would pass nodes."""
    if family.startswith("eps") and SPANS[span][0] == -math.inf:
        assert load(span, family, 6) is None  # of pure noise eps says nothing
        return
    for nfe, way in itertools.product((3, 6, 9, 20, 40), itertools.product((-1, 1), repeat=2)):
        if nfe > 12 and "13-40" not in BUDGETS[family]:
            continue
        table, order, _ = load(span, family, nfe) or pytest.fail("no table")
        low, high = (end + sign * most for end, sign, most in zip(SPANS[span], way, MOVED, strict=True))
        found = moved(table, order, low, high, in_noise)
        assert (found.lam[0], found.lam[-1]) == (low, high)
        assert np.all(np.diff(found.lam) > 0)
        if family == "wide":
            assert found.defect < 1e-9


@pytest.mark.parametrize(
    ("first", "last", "most"),
    [
        (7.25, 0.03, (1.5e-4, 1e-5)), (14.6, 0.047, (1.2e-4, 1e-5)), (29.4, 0.0191, (2e-4, 1.4e-5)),
        (math.inf, 0.0191, (8e-4, 3e-5)),
    ],
)  # fmt: skip
def test_many_steps_between_other_ends(first: float, last: float, most: tuple[float, float]) -> None:
    """Stable Diffusion's levels cut or made longer. Where ends passed nodes it was an error, and else errors were up to
    twenty times as large: the steps next to the ends alone took all of the change."""
    data, sch = unseen(), logsnr.FlowMatching()
    ends = {"t_start": 1 / (1 + 1 / first), "t_end": last / (1 + last)}
    x = logsnr.randn((16, 16), seed=9, dtype=torch.float64) * sch.sigma(ends["t_start"])
    end = logsnr.sample(data.denoiser(sch), x, solver=Adams("x0", 4, corrector=True), steps=256, **ends)
    for nfe, bound in zip((20, 40), most, strict=True):
        assert median(data.denoiser(sch), end, x, solver="universal", width=2.0, nfe=nfe, **ends) < bound
