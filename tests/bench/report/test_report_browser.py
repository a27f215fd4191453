"""The page of the bench in a browser: it renders without an error, and every control does what it says."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from logsnr.bench.problems import load_problem
from logsnr.bench.report import explorer
from logsnr.bench.report.report import Section, write_report
from logsnr.bench.report.sheets import Pictures
from logsnr.bench.report.tables import Board
from logsnr.bench.results import LAW, Case, Row

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium"),
    pytest.mark.skipif(not explorer.available(), reason="needs altair and vl-convert-python: pip install '.[report]'"),
]
# The size of the smallest words in plots that need no script, as they are shown.
STATIC_TEXT = """Math.min(...[...document.querySelectorAll(".panels text")]
  .filter(text => /[a-z]/.test(text.textContent))
  .map(text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
SOLVERS = {"ddim": 2.0, "dpmpp-2m": 1.0, "unipc-3": 0.5, "auto": 0.25}


def path_rows(problem: str, factor: float) -> list[Row]:
    return [
        Row(Case(problem, name, "ramp", grid, nfe, None, 8, 0), nfe,
            {"median": (error := factor * level * scale / nfe), "rms": 2 * error, "p90": 3 * error, "far": 0.0,
             "reference_error": 1e-9}, "here")
        for name, level in SOLVERS.items()
        for grid, scale in ((("own", 1.0),) if name == "auto" else (("logsnr", 1.0), ("karras", 1.5)))
        for nfe in (5, 10, 20)
    ]  # fmt: skip


def law_rows(problem: str) -> list[Row]:
    levels = {"": 0.2, "_exact": 0.1, "_low": 0.09, "_high": 0.12}
    found = {f"{name}{end}": level for name in LAW for end, level in levels.items()}
    case = Case(problem, "ddpm", "ramp", "logsnr", 10, None, 8, 0, "law")
    return [Row(case, 10, found, "here")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with two problems, one of them with pictures and in law, from rows made up."""
    digits, gaussian = load_problem("digits"), load_problem("gaussian")
    rows = path_rows("digits", 1.0)
    made = {at: torch.zeros(8, 1, 8, 8) for at in Board.of(rows).best}
    sections = [
        Section(digits, rows, Pictures(made, torch.ones(8, 1, 8, 8))),
        Section(digits, law_rows("digits")),
        Section(gaussian, path_rows("gaussian", 0.01)),
    ]
    path: Path = tmp_path_factory.mktemp("page") / "index.html"
    write_report(path, sections, ["logsnr", "bench"], "results.csv")
    assert path.stat().st_size < 2_000_000
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, address, **options):
    """The page, when its charts are drawn, and what went wrong on it."""
    page = browser.new_page(**options)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or wrong.append(request.url))
    page.goto(address)
    if options.get("java_script_enabled", True):
        page.wait_for_selector(".explorer svg .mark-symbol path")
    return page, wrong


@pytest.fixture(scope="module")
def page(browser, address):
    """One page for all who leave it as they found it."""
    page, wrong = opened(browser, address)
    yield page
    assert wrong == []
    page.close()


def points(page) -> list[dict[str, str]]:
    """What the points of the first chart are, in words."""
    found = page.locator(".explorer").first.locator(".mark-symbol.role-mark path").all()
    labels = [point.get_attribute("aria-label") for point in found]
    return [dict(part.split(": ", 1) for part in label.split("; ")) for label in labels]


def solvers(page) -> set[str]:
    return {point["solver"] for point in points(page)}


def error(page, solver: str, nfe: int) -> float:
    (found,) = [p["error"] for p in points(page) if p["solver"] == solver and p["NFE"] == str(nfe)]
    return float(found)


def choose(page, name: str, value: str) -> None:
    page.locator(f".explorer select[name={name}]").first.select_option(value)
    page.wait_for_timeout(100)


def test_the_problem_the_metric_and_the_grid_are_chosen(page) -> None:
    """Each choice changes the points, by the numbers of the rows; "own" grids stay."""
    assert len(points(page)) == len(SOLVERS) * 3
    assert error(page, "ddim", 10) == pytest.approx(0.2)
    choose(page, "metric", "rms")
    assert error(page, "ddim", 10) == pytest.approx(0.4)
    choose(page, "problem", "gaussian")
    assert error(page, "ddim", 10) == pytest.approx(0.004)
    choose(page, "grid", "karras")
    assert error(page, "ddim", 10) == pytest.approx(0.006)
    assert {p["grid"] for p in points(page)} == {"karras", "own"}
    for name, value in (("metric", "median"), ("problem", "digits"), ("grid", explorer.BEST)):
        choose(page, name, value)
    assert error(page, "ddim", 10) == pytest.approx(0.2)


def test_families_are_hidden_and_shown_again(page) -> None:
    """A click on a name of the legend hides its family, another shows it."""
    name = page.locator(".explorer").first.locator(".role-legend-label text", has_text="UniPC")
    for expected in (set(SOLVERS) - {"unipc-3"}, set(SOLVERS)):
        name.click(force=True)
        page.wait_for_timeout(100)
        assert solvers(page) == expected


def test_solvers_are_found_by_a_part_of_their_name(page) -> None:
    """Typing leaves the lines with that in their name."""
    field = page.locator(".explorer input[type=search]").first
    for text, expected in (("DPM", {"dpmpp-2m"}), ("", set(SOLVERS))):
        field.fill(text)
        page.wait_for_timeout(200)
        assert solvers(page) == expected


def test_a_pointer_on_a_line_is_told_what_it_is(page) -> None:
    """The tooltip has solver, grid, NFE and error."""
    point = page.locator(".explorer").first.locator(".mark-symbol.role-mark path").first
    point.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    told = page.locator("#vg-tooltip-element").inner_text()
    said = dict(part.split(": ", 1) for part in point.get_attribute("aria-label").split("; "))
    for name in ("solver", "start", "family", "grid", "NFE", "NFE spent", "error"):
        assert {name, said[name]} <= set(told.replace("\n", "\t").split("\t")), name
    assert "undefined" not in told


def test_the_slider_shows_the_pictures_of_one_budget(page) -> None:
    """One frame at a time, moved by clicks and by the arrow keys."""
    frames = page.locator(".slider").first.locator(".frame")
    visible = lambda: [frames.nth(k).is_visible() for k in range(frames.count())]  # noqa: E731
    assert visible() == [False, True, False]
    page.locator(".slider label", has_text="20").first.click()
    assert visible() == [False, False, True]
    page.keyboard.press("ArrowLeft")
    assert visible() == [False, True, False]
    image = frames.nth(1).locator("img").first
    assert image.bounding_box()["width"] >= 140


def test_laws_show_what_exact_samples_have(page) -> None:
    """The second chart has a band."""
    assert page.locator(".explorer").nth(1).locator(".mark-rect.role-mark path").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_can_read_it(browser, address, scheme: str) -> None:
    """At 390 pixels nothing is wider than the page, the text of the charts is 12 pixels high, and stands out."""
    page, wrong = opened(browser, address, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    size, ink = page.evaluate(
        "(() => { const style = getComputedStyle(document.querySelector('.explorer .role-axis-label text'));"
        "return [style.fontSize, style.fill]; })()"
    )
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in (ink, paper)]
    assert size == "12px"
    assert page.evaluate(STATIC_TEXT) >= 10
    assert abs(levels[0] - levels[1]) > 0.6
    assert wrong == []
    page.close()


def test_on_paper_there_is_nothing_to_click(browser, address) -> None:
    """Plots and tables are printed, controls and what they control are not."""
    page, _ = opened(browser, address)
    page.emulate_media(media="print")
    for name, shown in ((".panels svg", True), ("table", True), (".explorer", False), ("nav", False)):
        assert page.locator(name).first.is_visible() is shown, name
    page.close()


def test_without_scripts_tables_plots_and_pictures_remain(browser, address) -> None:
    """The charts to explore are gone, and a line says why; the rest is there."""
    page, wrong = opened(browser, address, java_script_enabled=False)
    assert not page.locator(".explorer").first.is_visible()
    assert page.locator("noscript p").is_visible()
    assert page.locator(".panels svg").first.is_visible()
    assert page.locator("table").first.is_visible()
    page.locator(".slider label", has_text="20").first.click()
    assert page.locator(".slider").first.locator(".frame").nth(2).is_visible()
    assert wrong == []
    page.close()
