from logsnr.bench.report.families import FAMILIES, family_of
from logsnr.bench.report.plots import error_plot
from logsnr.bench.report.tables import Board
from logsnr.bench.results import Case, Row


def test_a_plot_has_the_best_of_each_family() -> None:
    """Families by name, ddim among the others; parts have no names, which would repeat on a page."""
    rows = [
        Row(Case("gaussian", name, "ramp", "logsnr", 4, None, 8, 0), 4, dict(median=0.1), "here")
        for name in ("ddim", "dpmpp-2m", "dpmpp-3m")
    ]
    plot = error_plot(Board.of(rows))
    assert plot.startswith("<svg")
    assert ">DPM-Solver++<" in plot
    assert ">others<" in plot
    assert ' id="figure_1"' not in plot


def test_families_are_what_their_solvers_are():
    """Not by the first letters alone: heun-rho is exponential, and what adds noise is apart."""
    wanted = {
        "heun": "Runge-Kutta", "heun-rho": "exponential RK", "dpm-3m": "DPM-Solver", "dpmpp-3m": "DPM-Solver++",
        "sde-dpmpp-2m": "with noise", "universal": "fitted", "ddim": "others", "deis-rho-2": "DEIS, LMS",
    }  # fmt: skip
    assert {name: family_of(name).title for name in wanted} == wanted
    assert len({family.title for family in FAMILIES}) == len(FAMILIES)
