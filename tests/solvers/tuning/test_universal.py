"""Universal tables: what is in the package, where they serve, and what there is elsewhere."""

import itertools
import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers import Adams
from logsnr.solvers.programs.provenance import widest
from logsnr.solvers.tuning.ends import moved
from logsnr.solvers.tuning.table import Fitted
from logsnr.solvers.tuning.universal import MOVED, SPANS, WIDTHS, Universal, load, of_range

EDM = logsnr.EDM(0.002, 80.0)
NFES = (5, 6, 8, 10)
MANY = 7, 11, 13, 20, 40  # of which some were not fitted to
BAR = np.cos((np.linspace(0, 1, 1001) + 0.008) / 1.008 * np.pi / 2) ** 2
COSINE = np.minimum(1 - BAR[1:] / BAR[:-1], 0.999)  # Nichol and Dhariwal 2021


def unseen(dim: int = 16) -> GaussianMixture:
    """Not of the family: another law of means and variances, and another seed."""
    g = torch.Generator().manual_seed(3)
    mu, s2, odds = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((8, dim), (8, dim), (8,)))
    return GaussianMixture(0.5 * mu, torch.exp(0.7 * s2 - 3), torch.softmax(odds, 0))


def median(data: GaussianMixture, sch: logsnr.Schedule, end: torch.Tensor, x: torch.Tensor, **options: Any) -> float:
    found = logsnr.sample(data.denoiser(sch), x, **options)
    return float((found - end).square().mean(1).sqrt().median())


def best_of(names: tuple[str, ...], *problem: Any, nfe: int) -> float:
    """The least median of these solvers, on two grids."""
    return min(median(*problem, solver=name, nfe=nfe, grid=grid) for name in names for grid in ("logsnr", "karras"))


@pytest.mark.parametrize("nfe", NFES)
def test_it_beats_the_best_named_solver_on_what_it_has_not_seen(nfe: int) -> None:
    data = unseen()
    x = logsnr.start(EDM, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(EDM), x, solver=Adams("x0", 4, corrector=True), steps=256)
    names = "dpmpp-2m", "dpmpp-3m", "deis-3", "deis-4", "deis-rho-3", "dpmpp-3s"
    named = best_of(names, data, EDM, end, x, nfe=nfe)
    assert median(data, EDM, end, x, solver="universal", nfe=nfe) < 0.2 * named
    assert median(data, EDM, end, x, solver="universal", width=10.0, nfe=nfe) < 0.6 * named


@pytest.mark.parametrize("kind", WIDTHS)
@pytest.mark.parametrize("nfe", NFES)
def test_the_tables_are_in_the_package(kind: str, nfe: int) -> None:
    found = load("edm", kind, nfe)
    assert found is not None
    table, _, told = found
    assert len(table) == nfe
    assert (table.lam[0], table.lam[-1]) == pytest.approx(SPANS["edm"], abs=1e-12)
    assert np.all(np.diff(table.lam) > 0)
    assert 0 < told["held-out median"] < told["start's median"]


@pytest.mark.parametrize("nfe", [15, 30])
def test_many_evaluations(nfe: int) -> None:
    """One set of numbers for 13 to 40: the best of the named solvers has twice the error at least."""
    data = unseen()
    x = logsnr.start(EDM, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(EDM), x, solver=Adams("x0", 4, corrector=True), steps=512)
    names = "dpm-3m", "dpm-4m", "unipc-3", "unipc-4", "ipndm-3"
    named = best_of(names, data, EDM, end, x, nfe=nfe)
    assert median(data, EDM, end, x, solver="auto", nfe=nfe) < 0.5 * named


@pytest.mark.parametrize("kind", WIDTHS)
@pytest.mark.parametrize("span", SPANS)
def test_tables_of_a_range_of_budgets(span: str, kind: str) -> None:
    for nfe in MANY:
        found = of_range(span, kind, nfe)
        assert found is not None
        table, _, told = found
        assert len(table) == nfe
        assert (table.lam[0], table.lam[-1]) == SPANS[span]
        assert np.all(np.diff(table.lam) > 0)
        assert table.kept == 3
        assert str(13 if nfe > 12 else 7) in told["fitted to evaluations"]


@pytest.mark.parametrize("kind", ["wide", "vast"])
@pytest.mark.parametrize("span", SPANS)
def test_wide_tables_are_consistent(span: str, kind: str) -> None:
    """States keep their weight, and answers have that of the step: what networks need."""
    for nfe in (*NFES, *MANY):
        found = load(span, kind, nfe)
        assert found is not None
        assert np.abs(found[0].weights[:, 0] - 1).max() < 1e-12
        assert found[0].defect < 1e-9


@pytest.mark.parametrize("scale", [4.0, 8.0])
def test_guided_models_have_tables_of_their_own(scale: float) -> None:
    """Between two classes, 8 evaluations of each answer: less than half the error of formulas."""
    data = unseen()
    some = GaussianMixture(data.means[:4], data.covs[:4], data.weights[:4] / data.weights[:4].sum())
    x = logsnr.start(EDM, (64, 16), seed=9, dtype=torch.float64)

    def model(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        alpha, sigma = torch.ones(len(t), 1, dtype=torch.float64), t.reshape(-1, 1)
        return torch.where(label > 0, some.posterior(x, alpha, sigma)[0], data.posterior(x, alpha, sigma)[0])

    guidance = logsnr.Guidance(scale, uncond={"label": torch.zeros(64, 1)})
    den = logsnr.Denoiser(model, EDM, "x0", conditions={"label": torch.ones(64, 1)}, guidance=guidance)
    end = logsnr.sample(den, x, solver=Adams("x0", 4, corrector=True), steps=256)
    found = {name: logsnr.solve(den, x, solver=name, nfe=8) for name in ("auto", "dpm-3m", "dpmpp-2m", "deis-3")}
    errors = {name: float((run.x - end).square().mean(1).sqrt().median()) for name, run in found.items()}
    assert found["auto"].program.provenance["width"] == "guided"  # type: ignore[union-attr]
    assert errors.pop("auto") < 0.5 * min(errors.values())


@pytest.mark.parametrize("kind", [*WIDTHS, "guided"])
@pytest.mark.parametrize("span", SPANS)
def test_none_is_missing_from_3_to_40(span: str, kind: str) -> None:
    assert [n for n in (*range(3, 14), 40) if load(span, kind, n) is None] == []  # 13 to 40 are of one file
    assert load(span, kind, 2) is None
    assert load(span, kind, 41) is None


@pytest.mark.parametrize("start", ["noise", "some signal"])
def test_no_call_between_the_last_level_and_clean_data(start: str) -> None:
    """A network of a table of levels knows none below the first: the last evaluation is there. Fitted to go on, the
    errors of the same solver were 2e-3 from 10 to 40 evaluations."""
    bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    if start == "noise":  # zero terminal signal, Lin et al. 2023, algorithm 1
        root = np.sqrt(bar)
        bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    data, sch = unseen(), logsnr.Discrete(bar)
    x = logsnr.start(sch, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(sch), x, solver=Adams("x0", 4, corrector=True), steps=256)
    for nfe, most in ((10, 2e-3), (20, 6e-4), (40, 3e-5)):
        found = logsnr.solve(data.denoiser(sch), x, solver="universal", nfe=nfe, width=1.0)
        told = [call.t for call in found.program or ()]
        assert found.nfe == len(told) == nfe
        assert min(told) == told[-1] == sch.last_level == 0.0
        assert float((found.x - end).square().mean(1).sqrt().median()) < most


def test_every_schedule_is_the_same_to_it() -> None:
    """On a schedule with the same log-SNR at its ends the samples are the same, up to alpha."""
    data, other = unseen(), logsnr.Trigonometric()
    times = [float(other.time(lam)) for lam in SPANS["edm"]]
    z = logsnr.randn((8, 16), seed=0, dtype=torch.float64)
    one = logsnr.sample(data.denoiser(EDM), 80 * z, solver="universal", nfe=6)
    x = z * other.sigma(times[0])
    two = logsnr.sample(data.denoiser(other), x, solver="universal", nfe=6, t_start=times[0], t_end=times[1])
    torch.testing.assert_close(two / other.alpha(times[1]), one, rtol=1e-9, atol=1e-9)


def test_data_of_another_scale() -> None:
    """``data_std`` scales everything: on data three times as large, with three times the noise, the answer is."""
    data, sch = unseen(), logsnr.EDM(0.006, 240.0)
    large = GaussianMixture(3 * data.means, 9 * data.covs, data.weights)
    x = logsnr.start(EDM, (8, 16), seed=0, dtype=torch.float64)
    one = logsnr.sample(data.denoiser(EDM), x, solver="universal", nfe=6, width=10.0)
    two = logsnr.sample(large.denoiser(sch), 3 * x, solver="universal", nfe=6, data_std=3.0, width=30.0)
    torch.testing.assert_close(two, 3 * one, rtol=1e-9, atol=1e-9)


def test_data_of_any_scale_to_no_noise() -> None:
    """The clean end of the table scales as the rest does."""
    sch, first = logsnr.FlowMatching(), 1 / (1 + 1 / 80e6)
    grid = logsnr.grid(sch, 8, t_start=first, t_end=0.0)
    program = logsnr.solver("universal", data_std=1e6, width=1e6).program(sch, grid)
    assert not program.notes
    assert sch.half_logsnr(program.calls[-1].t) == pytest.approx(-math.log(0.002e6))


def test_ends_move_a_little() -> None:
    """From sigma 100 to 0.0025 it is still far better than the method that it corrects."""
    data, sch = unseen(), logsnr.EDM(0.0025, 100.0)
    x = logsnr.start(sch, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(sch), x, solver=Adams("x0", 4, corrector=True), steps=256)
    plain, table = (median(data, sch, end, x, solver=s, nfe=8) for s in (Adams("eps", 3), Universal(width=2.0)))
    assert table < 0.3 * plain


@pytest.mark.parametrize("nfe", [6, 10])
@pytest.mark.parametrize(
    ("sch", "options"),
    [
        (logsnr.VPCosine(), {}), (logsnr.Discrete(np.cumprod(1 - COSINE)), {}), (logsnr.EDM(0.002, 700.0), {}),
        (logsnr.FlowMatching(), {"t_end": 1e-3}), (logsnr.EDM(0.01, 50.0), {}),
    ],
    ids=["cosine", "a table of it", "sigma from 700", "flow to 0.001", "sigma 50 to 0.01"],
)  # fmt: skip
def test_one_begins_in_any_noise(sch: logsnr.Schedule, options: dict[str, float], nfe: int) -> None:
    """On ranges that no table was made for, where formulas have 0.4 to 1.2 of the error of the best named solver."""
    data = unseen()
    x = logsnr.start(sch, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(sch), x, solver=Adams("x0", 4, corrector=True), steps=256, **options)
    named = min(
        median(data, sch, end, x, solver=name, nfe=nfe, grid=grid, **options)
        for name in ("dpm-2m", "dpm-3m", "dpmpp-2m", "deis-2") for grid in ("logsnr", "karras", "time")
    )  # fmt: skip
    assert median(data, sch, end, x, solver="universal", nfe=nfe, **options) < (0.5 if nfe == 6 else 0.25) * named


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
@pytest.mark.parametrize("kind", [*WIDTHS, "guided"])
@pytest.mark.parametrize("span", SPANS)
def test_nodes_keep_their_order_wherever_the_ends_are(span: str, kind: str, in_noise: bool) -> None:
    """Tables of many steps have steps far shorter than ends may move: only moving the ends would pass nodes."""
    for nfe, way in itertools.product((3, 6, 9, 20, 40), itertools.product((-1, 1), repeat=2)):
        table, order, _ = load(span, kind, nfe) or pytest.fail("no table")
        low, high = (end + sign * most for end, sign, most in zip(SPANS[span], way, MOVED, strict=True))
        found = moved(table, order, low, high, in_noise)
        assert (found.lam[0], found.lam[-1]) == (low, high)
        assert np.all(np.diff(found.lam) > 0)
        if kind == "wide":
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
        assert median(data, sch, end, x, solver="universal", width=2.0, nfe=nfe, **ends) < bound


@pytest.mark.parametrize(
    ("sch", "nfe", "options", "told"),
    [
        (logsnr.EDM(0.5, 5.0), 8, {}, "sigma/alpha from 5 to 0.5 is far from"),
        (logsnr.FlowMatching(), 41, {}, "none was made for 41 evaluations"),
        (EDM, 41, {}, "none was made for 41 evaluations"),
        (EDM, 8, {"width": 500.0}, "a widest direction of 500 is beyond 100"),
        (EDM, 8, {"data_std": 5.0}, "is far from"),
    ],
)
def test_elsewhere_it_says_so_and_falls_back(sch: logsnr.Schedule, nfe: int, options: dict, told: str) -> None:
    grid = logsnr.grid(sch, nfe)
    program = logsnr.solver("universal", **options).program(sch, grid)
    assert any(told in note for note in program.notes), program.notes
    assert not program.provenance
    gauge = "x0" if math.isinf(sch.half_logsnr(sch.t_start)) else "eps"
    assert program.calls == Adams(gauge, 2).plan(sch, grid).calls or [c.key for c in program.calls] == [
        c.key for c in Adams(gauge, 2).plan(sch, grid).calls
    ]


def test_data_that_are_wider_than_those_of_the_table_are_told() -> None:
    """From the samples, if there are enough of them; what is said then names the width."""
    den = GaussianMixture(torch.zeros(1, 16), torch.tensor([[300.0**2] + [0.25] * 15])).denoiser(EDM)
    x = logsnr.start(EDM, (32, 16), seed=1)
    with pytest.warns(UserWarning, match=r"in their widest direction, and the table is for data up to 4: .* width="):
        logsnr.sample(den, x, nfe=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logsnr.sample(den, x, nfe=8, width=300.0)
        logsnr.sample(den, x[:4], nfe=8)
        logsnr.sample(unseen().denoiser(EDM), x, nfe=8)
    assert widest(torch.randn(8, 100_000) * 0.5) < 12  # whose norm is 160
    assert widest(logsnr.randn((500, 3), seed=0) * torch.tensor([5.0, 1.0, 1.0])) == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("options", [{"width": 0.0}, {"width": "wide"}, {"data_std": -1.0}, {"data_std": math.inf}])
def test_bad_options(options: dict) -> None:
    with pytest.raises(ValueError, match="must be a positive number"):
        logsnr.solver("universal", **options)
    with pytest.raises(ValueError, match="must be a positive number"):
        Universal(**options)
