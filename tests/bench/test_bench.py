import base64
import re
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_runs import CASE, bench, references, row, rows
from matplotlib.image import imread
from rich.console import Console

import logsnr
from logsnr.bench.problems import PROBLEMS, load_problem
from logsnr.bench.references import load_reference
from logsnr.bench.report.sheets import Pictures, gallery, picture
from logsnr.bench.report.tables import Board, Line, legend, short, terminal_table
from logsnr.bench.results import COLUMNS
from logsnr.bench.work_precision import NFES, Plan, cases, default_solvers, measure
from logsnr.solvers.grids.grids import GRIDS


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return out, bench(out)


def test_every_solver_grid_and_budget_is_one_row_of_the_csv(report):
    """The CSV has the documented columns and exactly the combinations asked for."""
    found = rows(report[0])
    assert tuple(found[0]) == COLUMNS
    asked = {(r["solver"], r["grid"], int(r["nfe"])) for r in found}
    assert len(found) == len(asked) == 2 * 3 * 2
    assert all(int(r["nfe_used"]) == int(r["nfe"]) and float(r["median"]) > 0 for r in found)


def test_the_errors_are_those_of_sample_against_the_closed_form_flow(report):
    """The reported median, RMS and 90th percentile are those of `sample` against `Gaussian.flow`."""
    images = logsnr.analysis.load_digits()[0].flatten(1)
    data = logsnr.analysis.Gaussian(images.mean(0), torch.cov(images.mT))
    sch = logsnr.VPLinear()
    x = load_problem("gaussian").start(8, 0)
    y = logsnr.sample(data.denoiser(sch), x, solver="ddim", nfe=8, grid="karras")
    errors = (y - data.flow(x, sch, sch.t_start, sch.t_end)).square().mean(1).sqrt().numpy()
    (found,) = (r for r in rows(report[0]) if (r["solver"], r["grid"], r["nfe"]) == ("ddim", "karras", "8"))
    expected = [np.median(errors), np.sqrt(np.mean(errors**2)), np.sort(errors)[7]]  # 8 samples: the worst
    np.testing.assert_allclose([float(found[k]) for k in ("median", "rms", "p90")], expected, rtol=1e-12)


def test_the_page_holds_all_that_it_shows_and_the_command_that_made_it(report):
    """`index.html` refers to nothing outside itself, and shows the command."""
    page = (report[0] / "index.html").read_text()
    shown = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    sources = re.findall(r' (?:src|href)="([^"]{0,40})', shown)
    assert sources
    assert all(source.startswith(("data:image/", "#part-")) for source in sources)
    assert "logsnr bench --nfe 4" in page


def test_the_page_stays_whole_without_fixed_steps(tmp_path):
    """A bench of adaptive solvers alone, which have no budgets, writes its page."""
    bench(tmp_path, Plan(solvers=("bosh3",), rtols=(1e-2,), samples=8))
    assert "bosh3" in (tmp_path / "index.html").read_text()


def test_the_terminal_shows_the_least_possible_as_a_dash(tmp_path):
    """A budget too small for one step is a dash in the table, not an error."""
    shown = bench(tmp_path, Plan(solvers=("ddim", "rk4"), nfes=(3, 4), samples=8), page=False)
    assert re.search(r"rk4 +- +\d", shown)
    assert "-: no row of rk4 at 3: it needs at least 4" in shown


def test_solvers_that_fit_no_budget_are_told(tmp_path):
    """A solver that was named and takes more than every budget is not left out without a word."""
    output = bench(tmp_path, plan=Plan(solvers=("ddim", "rk4"), nfes=(3,), rtols=(), samples=8), page=False)
    assert "no row of rk4 at 3: it needs at least 4" in output


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_references_are_good_to_1e_8_and_kept(name, tmp_path):
    """A reference agrees with an independent integration to 1e-8, and is computed once."""
    problem = load_problem(name)
    first = load_reference(problem, "path", 4, 0, tmp_path)
    assert first.error < 1e-8
    again = load_reference(replace(problem, exact=lambda x: pytest.fail("computed again")), "path", 4, 0, tmp_path)
    assert torch.equal(first.answer, again.answer)


def test_a_solver_that_diverges_has_infinite_error():
    """A model that returns NaN ends one row, not the bench."""
    problem = load_problem("gaussian")
    reference = load_reference(problem, "path", 8, 0, Path(references().name))
    broken = logsnr.Denoiser(lambda x, t: x * torch.nan, problem.denoiser.schedule, "x0")
    found, _ = measure(replace(problem, denoiser=broken), CASE, reference)
    assert found.statistics["median"] == found.statistics["rms"] == np.inf


def test_equal_solvers_are_measured_once_and_no_others_are_left_out():
    """The default solvers' programs differ, and every deterministic solver is one of them or equals one."""
    sch = logsnr.VPLinear()
    times = logsnr.grid(sch, 6)
    chosen = [logsnr.solver(name) for name in default_solvers()]
    programs = [s.program(sch, times).calls for s in chosen if s.planner]
    tables = {b"".join(call.matrix.tobytes() for call in calls) for calls in programs}
    assert len(tables) == len(programs)
    covered = {name for s in chosen for name in (s.name, *s.equals)}
    assert covered >= {n for n in logsnr.solver_names() if not logsnr.solver(n).stochastic}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(solvers=("rk4",), nfes=(3,)), "there is nothing to measure: no row of rk4 at 3: it needs at least 4"),
        (Plan(nfes=(0,)), "nfe = 0 must be positive"),
        (Plan(grids=("karas",)), "did you mean 'karras'"),
        (Plan(solvers=("dpmpp2m",)), "did you mean 'dpmpp-2m'"),
        (Plan(rtols=(-1.0,)), "rtol = -1.0 must be positive"),
    ],
)
def test_impossible_plans_are_refused_before_any_work(plan, said, tmp_path):
    """What cannot be measured is a ValueError that says what could be, and nothing is written."""
    with pytest.raises(ValueError, match=re.escape(said)):
        bench(tmp_path / "out", plan)
    assert not (tmp_path / "out").exists()


def test_unknown_problems_are_refused_with_the_nearest_name():
    """A misspelt problem is a ValueError that names the right one."""
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        load_problem("digit")
    assert all(load_problem(name).name == name for name in PROBLEMS)


def test_the_start_is_the_same_noise_for_every_number_type():
    """The network in float32 and its float64 reference start from the same numbers."""
    start = load_problem("digits-net").start(2, 3)
    assert start.dtype == torch.float64
    assert torch.equal(start, start.float().double())


def test_the_board_takes_the_grid_with_the_least_error():
    """Each cell is the best grid by the board's own statistic."""
    found = [
        row(median=2.0, rms=1.0),
        row(median=1.0, rms=2.0, grid="karras"),
        row("euler", median=0.5, rms=9.0),
    ]
    by_median, by_rms = Board.of(found), Board.of(found, "rms")
    assert by_median.best[Line("ddim"), 4].case.grid == "karras"
    assert by_rms.best[Line("ddim"), 4].case.grid == "logsnr"
    assert by_median.winner(4).case.solver == "euler"


def test_the_table_fits_80_columns():
    """The terminal's table and legend at the default budgets are at most 80 columns wide."""
    cells = list(zip(NFES, 3 * GRIDS, strict=False))
    found = [row(name, nfe, 1.2e-9, kind, "single-step") for name in default_solvers() for nfe, kind in cells]
    console = Console(file=StringIO(), width=200)
    console.print(terminal_table(Board.of(found)))
    console.print(legend(Board.of(found)))
    assert max(len(line.rstrip()) for line in console.file.getvalue().splitlines()) <= 80


def test_numbers_are_short():
    """Errors are shown with two digits and no padding, infinities as such."""
    assert [short(v) for v in (3.21e-3, 12.0, 1e-10, np.inf)] == ["3.2e-3", "1.2e1", "1.0e-10", "inf"]


def decoded(uri):
    return imread(BytesIO(base64.b64decode(uri.partition(",")[2])), format="png")


def test_pictures_have_dark_ink():
    """Ink, +1 in the data, is black, and paper white; of other images +1 is white."""
    half = torch.cat([torch.ones(4, 1, 8, 8), -torch.ones(4, 1, 8, 8)])
    for ink in (True, False):
        uri, (wide, high) = picture(half, ink)
        found = decoded(uri)
        assert found.shape == (high, wide) == (17, 35)
        assert found[:8, :8].max() == 1 - ink
        assert found[9:, :8].min() == ink
    assert decoded(picture(torch.zeros(2, 3, 8, 8), False)[0]).shape == (17, 35, 3)


def test_large_pictures_are_made_smaller():
    """Two of them, at most 96 pixels high, as JPEG."""
    uri, (wide, high) = picture(torch.zeros(5, 3, 256, 256), False)
    assert uri.startswith("data:image/jpeg")
    assert (wide, high) == (129, 64)


def test_the_gallery_shows_the_best_first():
    """A slider with the budgets, and for each the answer and the solvers by their error."""
    board = Board.of([row(nfe=4, median=2.0), row("euler", nfe=4, median=1.0), row(nfe=8)])
    page = gallery(Pictures(dict.fromkeys(board.best, torch.ones(8, 1, 8, 8)), torch.ones(8, 1, 8, 8)), board, "nfe-0")
    assert re.findall(r"<label [^>]*>(\d+)<", page) == ["4", "8"]
    assert re.findall(r"<code>(\S+)</code>", page) == ["euler", "ddim", "ddim"]
    assert page.count("checked") == 1


def test_the_case_list_covers_both_starts():
    """Multistep solvers of order 3 are measured with the ramp and with single steps, others once."""
    plan = Plan(solvers=("dpmpp-2m", "dpmpp-3m"), nfes=(10,), grids=("logsnr",))
    found = [(case.solver, case.startup) for case in cases(load_problem("gaussian"), plan)[0]]
    assert found == [("dpmpp-2m", "ramp"), ("dpmpp-3m", "ramp"), ("dpmpp-3m", "single-step")]
