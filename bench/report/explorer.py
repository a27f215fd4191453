"""Curves to explore: a Vega-Lite chart of all rows, in which one chooses problem, metric and grid.

Altair writes the chart, vl-convert the JavaScript that draws it, so the page loads nothing. Both are optional: without
them the page has its tables and its static plots.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...analysis.compare_plan import OWN
from ..results import LAW, PATH, Compared, Row
from .families import FAMILIES, family_of
from .tables import WORDS, line_of

if TYPE_CHECKING:
    import altair as alt

Groups = Sequence[tuple[str, Sequence[Row]]]  # the rows of each problem, by its name
METRICS: dict[Compared, tuple[str, ...]] = {"path": PATH, "law": LAW}
BEST = "best of all"
# Draws every chart of the page from the specification beside it; as SVG, whose text takes the colours of the page.
START = """for (const place of document.querySelectorAll(".chart"))
  vegaEmbed(place, JSON.parse(place.nextElementSibling.textContent), {renderer: "svg", actions: false});"""
HIDE = "click to hide a family, or to show it again"
EXACT = ("exact", "low", "high")  # what is known of exact samples
WORST = {"path": 3.0, "law": 1e9}  # the data has a spread of about 1: larger errors are drawn at the edge
INK, SOFT, GREEN = "currentColor", "#88888850", "#4d8c72"  # of text and lines, light and dark; of exact samples


def available() -> bool:
    """Whether the packages of the extra ``report`` are installed."""
    return all(find_spec(name) for name in ("altair", "vl_convert"))


@cache
def script() -> str:
    """The JavaScript of Vega, Vega-Lite and vega-embed, in one piece."""
    import vl_convert

    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub knows of no default
    return str(bundle).replace("</script", "<\\/script")


def specification(groups: Groups, compared: Compared) -> str:
    """The chart as JSON: error against NFE, a line for every solver and start, a colour for every family."""
    import altair as alt

    rows = [row for _, group in groups for row in group if row.case.nfe is not None]
    nfes = sorted({row.case.nfe or 0 for row in rows})
    present = [f.title for f in FAMILIES if any(family_of(row.case.solver) == f for row in rows)]
    shown = alt.selection_point(
        name="shown", fields=["family"], bind="legend", toggle="true", clear=False, empty=False,
        value=[{"family": title} for title in present],
    )  # fmt: skip
    hover = alt.selection_point(fields=["line"], on="pointerover", clear="pointerout", empty=False)
    ticks = [m * 10.0**k for k in range(-12, 4) for m in ((1, 3) if compared == "path" else (1, 2, 5))]
    stroke = dict(symbolType="stroke", symbolStrokeWidth=4)
    legend = alt.Legend(
        title=HIDE, titleLimit=400, orient="bottom", columns=alt.ExprRef("width < 480 ? 2 : 5"), **stroke
    )
    base = _chosen(groups, compared).transform_filter(shown).encode(
        x=alt.X("nfe:Q").scale(type="log", domain=[0.95 * nfes[0], 1.05 * nfes[-1]], nice=False)
        .axis(values=nfes, format="d", grid=False, title="NFE: model evaluations per sample"),
        y=alt.Y("height:Q").scale(type="log").axis(values=ticks, format="~g", title=None),
        color=alt.Color("family:N", legend=legend).scale(domain=present, scheme="tableau10"),
        detail="line:N",
    )  # fmt: skip
    lines = base.mark_line().encode(
        strokeDash=alt.StrokeDash("start:N", legend=None).scale(domain=["ramp", "single-step"], range=[[1, 0], [5, 3]]),
        opacity=alt.when(hover).then(alt.value(1.0)).otherwise(alt.value(0.55)),
        size=alt.when(hover).then(alt.value(4)).otherwise(alt.value(1.4)),
    )
    told = [alt.Tooltip(f"{name}:N") for name in ("solver", "start", "family", "grid")]
    told += [alt.Tooltip("nfe:Q", title="NFE"), alt.Tooltip("used:Q", title="NFE spent")]
    points = base.mark_point(filled=True, size=28, opacity=0.9).encode(
        tooltip=[*told, alt.Tooltip("error:Q", format=".2g")]
    )
    layers = [lines.add_params(*_controls(groups, compared, rows), shown), points.add_params(hover)]
    return _dressed(alt.layer(*_exact(groups, compared), *layers)).to_json(indent=None).replace("</", "<\\/")


def _chosen(groups: Groups, compared: Compared) -> "alt.Chart":
    """The best of the rows that the controls choose, for each line at each budget."""
    import altair as alt

    values = [
        {"problem": name, "family": family_of(row.case.solver).title, "line": str(line_of(row)), "nfe": row.case.nfe,
         "solver": row.case.solver, "start": row.case.startup, "grid": row.case.grid, "used": row.nfe_used}
        | {metric: value for metric in METRICS[compared] if (value := row.statistics[metric]) < float("inf")}
        for name, group in groups for row in group if row.case.nfe is not None
    ]  # fmt: skip
    parts = {name: f"datum.row.{name}" for name in ("error", "grid", "used", "solver")}
    return (
        alt.Chart(alt.InlineData(values=values))
        .transform_filter("datum.problem == problem")
        .transform_calculate(error="datum[metric]")
        .transform_filter("isValid(datum.error) && datum.error > 0")
        .transform_filter(f"grid == '{BEST}' || datum.grid == grid || datum.grid == '{OWN}'")
        .transform_filter("find == '' || indexof(datum.line, lower(find)) >= 0")
        .transform_aggregate(row="argmin(error)", groupby=["line", "family", "start", "nfe"])
        .transform_calculate(**parts, height=f"min(datum.row.error, {WORST[compared]})")
    )


def _controls(groups: Groups, compared: Compared, rows: Sequence[Row]) -> list[Any]:
    """What is chosen above the chart."""
    import altair as alt

    def choose(name: str, options: Sequence[str], labels: Sequence[str] = ()) -> Any:
        bind = alt.binding_select(options=list(options), labels=list(labels or options), name=f"{name} ")
        return alt.param(name=name, value=options[0], bind=bind)

    metrics = METRICS[compared]
    grids = [BEST, *dict.fromkeys(row.case.grid for row in rows if row.case.grid != OWN)]
    search = alt.BindInput(input="search", name="find ", placeholder="a solver")
    return [
        choose("problem", [name for name, _ in groups]),
        choose("metric", metrics, [WORDS[name] for name in metrics]),
        choose("grid", grids),
        alt.param(name="find", value="", bind=search),
    ]


def _dressed(chart: "alt.LayerChart") -> "alt.LayerChart":
    """As wide as the page, in its colours."""
    import altair as alt

    plain = dict(labelColor=INK, titleColor=INK, labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
    return (
        chart.properties(width="container", height=400)
        .properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(gridColor=SOFT, domainColor=SOFT, tickColor=SOFT, **plain)
        .configure_legend(symbolOpacity=1, **plain)
    )


def _exact(groups: Groups, compared: Compared) -> list[Any]:
    """Of laws, what exact samples have: a band and a line."""
    import altair as alt

    if compared == "path":
        return []
    levels = [
        {"problem": name, "of": metric} | {end: group[0].statistics[f"{metric}_{end}"] for end in EXACT}
        for name, group in groups
        for metric in METRICS[compared]
    ]
    base = alt.Chart(alt.InlineData(values=levels)).transform_filter("datum.problem == problem && datum.of == metric")
    told = [alt.Tooltip(f"{end}:Q", format=".2g") for end in EXACT]
    band = base.mark_rect(color=GREEN, opacity=0.25).encode(y="low:Q", y2="high:Q")
    return [band, base.mark_rule(color=GREEN).encode(y="exact:Q", tooltip=told)]
