"""Kinds of panels, and the frame of all dashboards."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    TextBoxVariable,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.text import Panel as TextPanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Panel,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.text import TextMode

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression. legend: the name of its series; {{label}} is replaced by the label's value."""

    expr: str
    legend: str = ""
    exemplars: bool = False
    """Show exemplars: the trace ids of a histogram's buckets."""


def quantiles(
    metric: str, *shares: float, of: str = "", by: str = "", legend: str = "", exemplars: bool = True
) -> list[Query]:
    """Return quantiles of a histogram. of: matchers. by: labels to keep."""
    labels = f"le, {by}" if by else "le"
    rate = f"sum by ({labels}) (rate({metric}_bucket{{{of}}}[$__rate_interval]))"
    return [Query(f"histogram_quantile({s}, {rate})", legend or f"{s:.0%} below", exemplars=exemplars) for s in shares]


def snapshot_quantiles(metric: str, *shares: float) -> list[Query]:
    """Return quantiles of a gauge histogram, which is a snapshot and has no rate."""
    return [Query(f"histogram_quantile({s}, max by (le) ({metric}_bucket))", f"{s:.0%} below") for s in shares]


def number(title: str, expr: str, *, unit: str = "short", bad_above: float | None = None, says: str = "") -> StatPanel:
    """Return a panel with one value, which is red from bad_above on."""
    steps = [Threshold(value=None, color="green")]
    if bad_above is not None:
        steps.append(Threshold(value=bad_above, color="red"))
    return (
        StatPanel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target("A", Query(expr)))
        .height(4)
        .span(4)
    )


def graph(title: str, *queries: Query, unit: str = "short", says: str = "", span: int = 12) -> TimeseriesPanel:
    """Return a panel of values over time."""
    panel = (
        TimeseriesPanel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .fill_opacity(8)
        .legend(
            VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .height(8)
        .span(span)
    )
    for place, query in enumerate(queries):
        panel.with_target(_target(chr(ord("A") + place), query))
    return panel


def text(markdown: str, *, height: int = 4) -> TextPanel:
    """Return a panel of text."""
    return TextPanel().title("").mode(TextMode.MARKDOWN).content(markdown).height(height).span(24)


def dashboard(
    uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Builder[Panel]]]], *, instances: bool
) -> Dashboard:
    """Return a dashboard of named rows. instances: add the variables job and instance."""
    made = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["pulse"])
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .readonly()
        .link(_link("Runbooks").type(DashboardLinkType.LINK).url("${runbooks}").target_blank(True))
        .link(_link("Pulse").type(DashboardLinkType.DASHBOARDS).tags(["pulse"]).as_dropdown(True))
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        # The address of the documents differs between installations.
        .with_variable(TextBoxVariable("runbooks").label("Runbooks at").default_value("docs/runbooks.md"))
    )
    if instances:
        made.with_variable(_variable("job", 'label_values(up{job=~"pulse_.+"}, job)'))
        made.with_variable(_variable("instance", 'label_values(up{job=~"$job"}, instance)'))
    for name, panels in rows:
        made.with_row(Row(name))
        for panel in panels:
            made.with_panel(panel)
    # Grafana identifies panels by numbers, which the builders leave out.
    for number_of_panel, panel_made in enumerate(made.build().panels or [], start=1):
        panel_made.id_val = number_of_panel
    return made


def _target(ref_id: str, query: Query) -> Dataquery:
    target = Dataquery().ref_id(ref_id).datasource(SOURCE).expr(query.expr).legend_format(query.legend or "__auto")
    return target.exemplar(True) if query.exemplars else target


def _link(title: str) -> DashboardLink:
    return DashboardLink(title).keep_time(True)


def _variable(name: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )
