"""Tables for models that say eps: errors of eps are those of x0 times sigma / alpha, and a fit must have seen them."""

import math
from dataclasses import replace

import pytest
import torch
from unseen_data import best_of, median

import logsnr
from logsnr.bench.family import Family, Kinds
from logsnr.bench.networks.perceptron import trained_perceptron
from logsnr.bench.unseen import RANGES, mixture, points
from logsnr.solvers.statistics.width import data_width
from logsnr.solvers.tuning.serving import DataHints
from logsnr.solvers.tuning.stored import FAMILY, load
from logsnr.solvers.tuning.teacher import ends
from logsnr.solvers.tuning.universal import Universal, find_table

NAMED = "dpm-2m", "dpm-3m", "ipndm-2", "unipc-2"


@pytest.fixture(scope="module")
def net() -> logsnr.Denoiser:
    return trained_perceptron(points(mixture(16, 8, 3)), steps=2000)


@pytest.fixture(scope="module")
def problem(net: logsnr.Denoiser) -> tuple[logsnr.Denoiser, torch.Tensor, torch.Tensor]:
    x = logsnr.start(net.schedule, (96, 16), seed=4, dtype=torch.float64)
    return net, ends(net, x, net.schedule.t_start, net.schedule.t_end).end, x


@pytest.mark.parametrize(("nfe", "most"), [(5, 0.5), (6, 0.5), (8, 0.8), (12, 1.2), (15, 1.6)])
def test_a_network_that_says_eps(
    problem: tuple[logsnr.Denoiser, torch.Tensor, torch.Tensor], nfe: int, most: float
) -> None:
    """Tables that were fitted to exact answers alone have 3 to 30 times the error of the best named solver."""
    best = best_of(NAMED, *problem, nfe=nfe, grids=("logsnr", "karras", "time"))
    assert median(*problem, solver="auto", nfe=nfe) < most * best


def test_its_errors_are_not_its_width(net: logsnr.Denoiser) -> None:
    """At sigma / alpha = 100 they are larger than the data, and 20 was what they measured."""
    assert data_width(net, logsnr.start(net.schedule, (96, 16), seed=4, dtype=torch.float64)) < 4


def test_what_says_eps_has_tables_of_its_own() -> None:
    """Pictures by the head of the model, and never from pure noise, of which eps says nothing."""
    for head, family in (("eps", "eps-pictures"), ("score", "eps-pictures"), ("v", "pictures"), ("x0", "pictures")):
        for sch, of in ((RANGES["vp"], family), (RANGES["flow"], "pictures")):
            found = find_table(Universal().suited((1, 8, 8), False, head), sch, sch.t_start, sch.t_end, 8)
            assert not isinstance(found, str)
            assert found.told[FAMILY] == of
    hints = DataHints(2.0, eps=True)
    for other, nfe, of in (
        (hints, 8, "eps-pictures"),
        (hints, 13, "eps-vectors"),
        (replace(hints, width=20.0), 12, "eps-pictures"),
        (replace(hints, width=20.0), 13, None),
        (replace(hints, width=1.5, dimension=3), 12, "eps-points"),
        (replace(hints, width=1.5, dimension=3), 13, "eps-vectors"),
        (replace(hints, dimension=2), 8, "eps-vectors"),
        (replace(hints, width=5.0, dimension=100), 40, "eps-vectors"),
        (replace(hints, width=6.0, dimension=200), 8, None),
        (replace(hints, guided=True), 13, "eps-guided"),
    ):
        entry = other.served_by(nfe)
        assert (entry and entry.family) == of
    found = find_table(Universal(6.0, dimension=200, eps=True), RANGES["vp"], 1.0, 1e-3, 8)
    assert found == "for models that say eps, a widest direction of 6 is beyond 5"
    sch = RANGES["edm"]
    den = logsnr.Denoiser(lambda x, t: 0 * x, sch, "eps")
    program = logsnr.solve(den, logsnr.start(sch, (2, 3, 16, 16), seed=0), nfe=8).program
    assert program
    assert program.provenance[FAMILY] == "eps-pictures"


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("dimension", [0, 1, 64])
@pytest.mark.parametrize("span", ["edm", "vp", "sd"])
def test_none_is_missing_from_3_to_40(span: str, dimension: int, guided: bool) -> None:
    for width in (1.0, 4.0):
        entries = {n: DataHints(width, 1.0, guided, dimension, eps=True).served_by(n) for n in range(2, 42)}
        assert [n for n, entry in entries.items() if not entry or load(span, entry.family, n) is None] == [2, 41]


@pytest.mark.parametrize("head", ["v", "eps"])
def test_errors_of_a_family(head: str) -> None:
    """Of the size that is asked for, in what the head says; alpha x0 + sigma eps is what it was."""
    exact, other = (Family(8, Kinds((0.6, 3.0), error=error, head=head), 1) for error in (0.0, 0.1))
    u = exact.starts(64, 2)
    for lam in (-4.0, 0.0, 3.0):
        a, s = (math.sqrt(1 / (1 + math.exp(sign * 2 * lam))) for sign in (-1, 1))
        (x0, eps), (x, e) = (family.posterior(u, a, s) for family in (exact, other))
        said = e - eps if head == "eps" else a * (e - eps) - s * (x - x0)
        assert float(said.square().mean().sqrt()) == pytest.approx(0.1, rel=0.15)
        torch.testing.assert_close(a * x + s * e, u)
        torch.testing.assert_close(a * x0 + s * eps, u)
