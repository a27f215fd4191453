"""Universal tables: what is in the package, where they serve, and what there is elsewhere."""

import math
import warnings

import numpy as np
import pytest
import torch
from unseen_data import best_of, median, unseen

import logsnr
from logsnr.analysis.empirical import Empirical
from logsnr.analysis.mixture import GaussianMixture
from logsnr.bench.digits_net import PREDICTION, SCHEDULE, load_digits_net
from logsnr.bench.unseen import RANGES, rings
from logsnr.solvers import Adams
from logsnr.solvers.programs.provenance import widest
from logsnr.solvers.tuning.stored import FAMILY, SPANS, load, of_range
from logsnr.solvers.tuning.universal import Universal

EDM = logsnr.EDM(0.002, 80.0)
FINE = Adams("eps", 4, corrector=True)  # from some signal on
NFES = (5, 6, 8, 10)
MANY = 7, 11, 13, 20, 40  # of which some were not fitted to
RANGED = "points", "narrow", "vectors", "groups", "wide", "vast"


def of_pictures(width: float, nfe: int) -> logsnr.Program:
    """The table for pictures of this width."""
    return logsnr.solver(Universal(width)).program(EDM, logsnr.grid(EDM, nfe))


@pytest.mark.parametrize("nfe", NFES)
def test_it_beats_the_best_named_solver_on_what_it_has_not_seen(nfe: int) -> None:
    data = unseen()
    x = logsnr.start(EDM, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(EDM), x, solver=Adams("x0", 4, corrector=True), steps=256)
    names = "dpmpp-2m", "dpmpp-3m", "deis-3", "deis-4", "deis-rho-3", "dpmpp-3s"
    named = best_of(names, data.denoiser(EDM), end, x, nfe=nfe)
    assert median(data.denoiser(EDM), end, x, solver="universal", nfe=nfe) < 0.2 * named
    assert median(data.denoiser(EDM), end, x, solver=of_pictures(10.0, nfe)) < 0.6 * named


@pytest.mark.parametrize("family", ["pictures", "guided", *RANGED])
@pytest.mark.parametrize("nfe", NFES)
def test_the_tables_are_in_the_package(family: str, nfe: int) -> None:
    found = load("edm", family, nfe)
    assert found is not None
    table, _, told = found
    assert len(table) == nfe
    assert (table.lam[0], table.lam[-1]) == pytest.approx(SPANS["edm"], abs=1e-12)
    assert np.all(np.diff(table.lam) > 0)
    assert 0 < told["held-out median"] < told["start's median"]


@pytest.mark.parametrize("nfe", [6, 8, 12, 20])
def test_wide_vectors_have_tables_of_their_own(nfe: int) -> None:
    """As they lie in groups: less than half of the best named solver's error, and less than pictures' tables have."""
    data = unseen(256)
    x = logsnr.start(EDM, (32, 256), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(EDM), x, solver=Adams("x0", 4, corrector=True), steps=256)
    named = best_of(("dpm-2m", "dpm-3m", "deis-3", "unipc-3"), data.denoiser(EDM), end, x, nfe=nfe)
    found = median(data.denoiser(EDM), end, x, solver="auto", nfe=nfe)
    assert found < 0.5 * named
    assert found < 0.6 * median(data.denoiser(EDM), end, x, solver=of_pictures(6.0, nfe))


@pytest.mark.parametrize("nfe", [6, 8, 12])
@pytest.mark.parametrize("span", ["edm", "sd"])
def test_points_have_tables_of_their_own(span: str, nfe: int) -> None:
    """Rings in the plane, on which the tables of vectors of many dimensions were behind at 10 and 12 on Stable
    Diffusion's levels: less than 0.7 of the best named solver's error."""
    sch, den = RANGES[span], Empirical(rings(), 0.05).denoiser(RANGES[span])
    x = logsnr.start(sch, (64, 2), seed=9, dtype=torch.float64)
    end = logsnr.sample(den, x, solver=FINE, steps=200)
    named = best_of(("dpm-2m", "dpm-3m", "deis-3", "unipc-3", "dpmpp-2m"), den, end, x, nfe=nfe)
    assert median(den, end, x, nfe=nfe) < 0.7 * named


@pytest.mark.parametrize("nfe", [5, 8])
def test_pictures_have_tables_for_networks(nfe: int) -> None:
    """Of digits, with the weights of vectors' tables the network has more than the best named solver's error at 5."""
    den, shape = logsnr.Denoiser(load_digits_net().double(), SCHEDULE, PREDICTION), (48, 1, 8, 8)
    x = logsnr.start(SCHEDULE, shape, seed=9, dtype=torch.float64)
    end, grids = logsnr.sample(den, x, solver=FINE, steps=200), ("flow", "time", "logsnr")
    named = best_of(("flow-2m", "flow-3m", "dpm-2m", "deis-3"), den, end, x, nfe=nfe, grids=grids)
    assert median(den, end, x, nfe=nfe) < 0.85 * named


@pytest.mark.parametrize("nfe", [15, 30])
def test_many_evaluations(nfe: int) -> None:
    """One set of numbers for 13 to 40: the best of the named solvers has twice the error at least."""
    data = unseen()
    x = logsnr.start(EDM, (64, 16), seed=9, dtype=torch.float64)
    end = logsnr.sample(data.denoiser(EDM), x, solver=Adams("x0", 4, corrector=True), steps=512)
    names = "dpm-3m", "dpm-4m", "unipc-3", "unipc-4", "ipndm-3"
    named = best_of(names, data.denoiser(EDM), end, x, nfe=nfe)
    assert median(data.denoiser(EDM), end, x, solver="auto", nfe=nfe) < 0.5 * named


@pytest.mark.parametrize("family", RANGED)
@pytest.mark.parametrize("span", SPANS)
def test_tables_of_a_range_of_budgets(span: str, family: str) -> None:
    for nfe in MANY:
        found = of_range(span, family, nfe)
        assert found is not None
        table, _, told = found
        assert len(table) == nfe
        assert (table.lam[0], table.lam[-1]) == SPANS[span]
        assert np.all(np.diff(table.lam) > 0)
        assert table.kept == 3
        assert str(13 if nfe > 12 else 7) in told["fitted to evaluations"]


@pytest.mark.parametrize(("family", "nfes"), [("pictures", NFES), ("wide", NFES + MANY), ("vast", NFES + MANY)])
@pytest.mark.parametrize("span", SPANS)
def test_tables_for_pictures_are_consistent(span: str, family: str, nfes: tuple[int, ...]) -> None:
    """States keep their weight, and answers have that of the step: what networks need."""
    for nfe in nfes:
        found = load(span, family, nfe)
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
    assert found["auto"].program.provenance[FAMILY] == "guided"  # type: ignore[union-attr]
    assert errors.pop("auto") < 0.5 * min(errors.values())


@pytest.mark.parametrize("start", ["noise", "some signal"])
def test_no_call_between_the_last_level_and_clean_data(start: str) -> None:
    """A network of a table of levels knows none below the first: the last evaluation is there. Fitted to go on, the
    errors of the same solver were 2e-3 from 10 to 40 evaluations."""
    data, sch = unseen(), RANGES["zero" if start == "noise" else "sd"]
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
    with pytest.warns(UserWarning, match=r"in their widest direction, and the table is for data up to 2.5: .* width="):
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
