"""Curves to explore: a Vega-Lite chart of all rows, in which one chooses problem, metric and grid.

Altair writes the chart, vl-convert the JavaScript that draws it, so the page loads nothing. Both are optional: without
them the page has its tables and its static plots.
"""

import csv
import json
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Any

from ..analysis.compare_plan import OWN
from .families import FAMILIES, family_of
from .results import LAW, PATH, Compared, Row
from .tables import WORDS, line_of

if TYPE_CHECKING:
    import altair as alt

Groups = Sequence[tuple[str, Sequence[Row]]]  # the rows of each problem, by its name
METRICS: dict[Compared, tuple[str, ...]] = {"path": PATH, "law": LAW}
BEST = "best of all"
# Draws every chart of the page from the specification beside it; as SVG, whose text takes the colours of the page.
START = """for (const place of document.querySelectorAll(".chart"))
  vegaEmbed(place, JSON.parse(place.nextElementSibling.textContent), {renderer: "svg", actions: false});"""
HEIGHT = 400
# What a point says of itself; to the pointer it is known as the datum of the area that it is the nearest point of.
FIELDS = {"solver": "solver", "start": "start", "family": "family", "grid": "grid", "NFE": "nfe", "NFE spent": "used"}
POINT = "(datum.datum || datum)"
VALUES = {label: f"{POINT}.{field}" for label, field in FIELDS.items()} | {"error": f"format({POINT}.error, '.2g')"}
TOLD = "{" + ", ".join(f"'{label}': {value}" for label, value in VALUES.items()) + "}"
SPOKEN = " + '; ".join(f"{label}: ' + {value}" for label, value in VALUES.items())
HIDE = "click to hide a family, or to show it again"
EXACT = ("exact", "low", "high")  # what is known of exact samples
WORST = 3.0  # the data has a spread of about 1: larger errors are all the same, and drawn at the edge
INK, SOFT = "currentColor", "#88888850"  # of text and lines, light and dark


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
    """The chart as JSON, of these rows."""
    text = json.dumps(chart(groups, compared).to_dict(), separators=(",", ":"))
    return text.replace("</", "<\\/")


def chart(groups: Groups, compared: Compared) -> "alt.LayerChart":
    """Error against NFE: a line for every solver and start, a colour for every family."""
    import altair as alt

    rows = [row for _, group in groups for row in group if row.case.nfe is not None]
    nfes = sorted({row.case.nfe or 0 for row in rows})
    present = [f.title for f in FAMILIES if any(family_of(row.case.solver) == f for row in rows)]
    shown = alt.selection_point(
        name="shown", fields=["family"], bind="legend", toggle="true", clear=False, empty=False,
        value=[{"family": title} for title in present],
    )  # fmt: skip
    base = _rows(groups, compared).transform_filter(shown)
    base = base.transform_aggregate(row="argmin(error)", groupby=["line", "family", "start", "nfe"])
    worst = WORST if compared == "path" else 1e9
    parts = {name: f"datum.row.{name}" for name in ("error", "grid", "used", "solver")}
    base = base.transform_calculate(**parts, height=f"min(datum.row.error, {worst})")
    ticks = [m * 10.0**k for k in range(-12, 4) for m in ((1, 3) if compared == "path" else (1, 2, 5))]
    base = base.encode(
        x=alt.X("nfe:Q", title="NFE: model evaluations per sample")
        .scale(type="log", domain=[0.95 * nfes[0], 1.05 * nfes[-1]], nice=False)
        .axis(values=nfes, format="d", grid=False),
        y=alt.Y("height:Q", title=None).scale(type="log").axis(values=ticks, format="~g"),
    )
    colour = alt.Color("family:N", title="family").scale(domain=present, scheme="tableau10")
    lines, *marks = _marks(base, colour)
    layers = [*_exact(groups, compared), lines.add_params(*_controls(groups, compared, rows), shown), *marks]
    return _dressed(alt.layer(*layers))


def _rows(groups: Groups, compared: Compared) -> "alt.Chart":
    """Those that the controls choose."""
    import altair as alt

    return (
        alt.Chart(alt.InlineData(values=_csv(groups, compared), format=alt.CsvDataFormat(type="csv")))
        .transform_filter("datum.problem == problem")
        .transform_calculate(error="datum[metric]")
        .transform_filter("isValid(datum.error) && datum.error > 0")
        .transform_filter(f"grid == '{BEST}' || datum.grid == grid || datum.grid == '{OWN}'")
        .transform_filter("find == '' || indexof(datum.line, lower(find)) >= 0")
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


def _marks(base: "alt.Chart", colour: "alt.Color") -> list[Any]:
    """Lines, points that tell what they are, and the name of the line that the pointer is near."""
    import altair as alt

    hover = alt.selection_point(
        name="hover", fields=["line"], on="pointerover", clear="pointerout", nearest=True, empty=False
    )
    columns = alt.ExprRef("width < 480 ? 2 : 5")
    stroke = dict(symbolType="stroke", symbolStrokeWidth=4)
    legend = alt.Legend(title=HIDE, titleLimit=400, orient="bottom", columns=columns, **stroke)
    dashes = alt.StrokeDash("start:N", legend=None).scale(domain=["ramp", "single-step"], range=[[1, 0], [5, 3]])
    lines = base.mark_line().encode(
        color=colour.legend(legend),
        detail="line:N",
        strokeDash=dashes,
        opacity=alt.when(hover).then(alt.value(1.0)).otherwise(alt.value(0.55)),
        size=alt.when(hover).then(alt.value(4)).otherwise(alt.value(1.4)),
    )
    points = base.mark_point(filled=True, size=28, opacity=0.9).encode(
        color=colour.legend(legend), tooltip=alt.value(alt.expr(TOLD)), description=alt.value(alt.expr(f"'{SPOKEN}"))
    )
    last = [alt.SortField("nfe", order="descending")]
    names = (
        base.transform_window(rank="rank()", groupby=["line"], sort=last)
        .transform_filter("datum.rank == 1")
        .mark_text(align="right", dy=-10, fontWeight="bold", fontSize=13, color=INK)
        .encode(text="line:N", opacity=alt.when(hover).then(alt.value(1)).otherwise(alt.value(0)))
    )
    return [lines, points.add_params(hover), names]


def _dressed(chart: "alt.LayerChart") -> "alt.LayerChart":
    """As wide as the page, in its colours."""
    import altair as alt

    plain = dict(labelColor=INK, titleColor=INK, labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
    return (
        chart.properties(width="container", height=HEIGHT)
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
    band = base.mark_rect(color="#4d8c72", opacity=0.25).encode(y="low:Q", y2="high:Q")
    line = base.mark_rule(color="#4d8c72").encode(
        y="exact:Q", tooltip=[alt.Tooltip(f"{end}:Q", format=".2g") for end in EXACT]
    )
    return [band, line]


def _csv(groups: Groups, compared: Compared) -> str:
    """The rows with fixed steps; an empty cell where a run diverged."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = METRICS[compared]
    writer.writerow(["problem", "family", "line", "solver", "start", "grid", "nfe", "used", *metrics])
    for name, group in groups:
        for row in group:
            case, family = row.case, family_of(row.case.solver).title
            values = [f"{v:.3g}" if (v := row.statistics[m]) < float("inf") else "" for m in metrics]
            if case.nfe is not None:
                line = [line_of(row), case.solver, case.startup, case.grid, case.nfe, row.nfe_used]
                writer.writerow([name, family, *line, *values])
    return text.getvalue()
