from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from logsnr.bench.families import FAMILIES, families, family_of
from logsnr.bench.plots import error_panels, spread
from logsnr.bench.results import Case, Row
from logsnr.bench.tables import Board, Line
from logsnr.bench.work_precision import default_solvers


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_labels_do_not_overlap(heights):
    """Spread labels lie a gap apart, in order, and at most 1 high."""
    moved = spread(heights, 0.06)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    assert all(moved[b] - moved[a] > 0.06 - 1e-9 for a, b in pairwise(order))
    assert max(moved) <= 1


def test_every_solver_is_in_one_family():
    """The panels show every ramp-started solver once; DDIM is the baseline of all."""
    lines = [Line(name) for name in default_solvers()]
    shown = [line for members in families(lines).values() for line in members]
    assert sorted(shown) == sorted(line for line in lines if line.solver != "ddim")


def test_ddim_alone_has_a_plot():
    """The baseline of every panel has one of its own where there is no other solver."""
    case = Case("gaussian", "ddim", "ramp", "logsnr", 4, None, 8, 0)
    alone = Row(case, 4, dict(median=0.1, rms=0.1, p90=0.1, reference_error=0.0), 1.0, 1.0, "here")
    (panel,) = error_panels(Board.of([alone]))
    assert panel.startswith("<svg")
    assert ">ddim<" in panel
    assert ' id="figure_1"' not in panel


def test_families_are_what_their_solvers_are():
    """Not by the first letters alone: heun-rho is exponential, and what adds noise is apart."""
    wanted = {
        "heun": "Runge-Kutta", "heun-rho": "exponential RK", "dpm-3m": "DPM-Solver", "dpmpp-3m": "DPM-Solver++",
        "sde-dpmpp-2m": "with noise", "universal": "fitted", "ddim": "others", "deis-rho-2": "DEIS, LMS",
    }  # fmt: skip
    assert {name: family_of(name).title for name in wanted} == wanted
    assert len({family.title for family in FAMILIES}) == len(FAMILIES)
