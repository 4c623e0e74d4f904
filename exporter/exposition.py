"""The results of one pass as families of metrics, rendered in the format that the scraper requests."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.families import build_family
from exporter.shape import ViewRefusal, ViewShape
from exporter.snapshot import ViewReading, taken_names
from services.shared.metrics import choose_format

T = TypeVar("T")

# Rendering costs about 10 µs a sample. From 5 ms on, it must not delay other requests.
SAMPLES_IN_LOOP = 500

_HELP = {
    "pulse_exporter_up": "1 if this scrape could read the database in time. Otherwise no view is served.",
    "pulse_exporter_scrape_duration_seconds": "Duration of the pass over all views.",
    "pulse_exporter_view_success": "1 if the view is served. Otherwise the log of the exporter has the reason.",
    "pulse_exporter_view_duration_seconds": "Duration of the query of the view.",
    "pulse_exporter_view_rows": "Number of rows of the view.",
}
_PER_VIEW = ("pulse_exporter_view_success", "pulse_exporter_view_duration_seconds", "pulse_exporter_view_rows")
OWN_NAMES = taken_names([(name, "gauge") for name in _HELP])


class Exposition(Collector):
    """Families of one pass, for any number of requests. refused: reason by name of view."""

    def __init__(self, families: Sequence[Metric], refused: Mapping[str, str] | None = None) -> None:
        self.families = families
        self.refused = refused or {}
        self._texts: dict[str, asyncio.Task[bytes]] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield from self.families

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return text and content type for an Accept header. Each format is rendered once for all requests."""
        encode, content_type = choose_format(accept)
        if content_type not in self._texts:
            size = sum(len(family.samples) for family in self.families)
            self._texts[content_type] = asyncio.create_task(offload(size, partial(encode, self)))
        return await asyncio.shield(self._texts[content_type]), content_type


async def offload(size: int, work: Callable[[], T]) -> T:
    """Return the result of work, which runs in a thread if size samples are too many for the event loop."""
    return await asyncio.to_thread(work) if size > SAMPLES_IN_LOOP else work()


def compose(readings: Sequence[ViewReading], *, process: Sequence[Metric], seconds: float, max_rows: int) -> Exposition:
    """Return the exposition of a pass that read the database."""
    success, durations, rows = (_own(name, "view") for name in _PER_VIEW)
    refused, families = {}, []
    for reading in sorted(readings, key=lambda reading: reading.view.name):
        family = family_of(reading, max_rows=max_rows)
        label = [reading.view.name]
        if isinstance(family, ViewRefusal):
            refused[reading.view.name] = family.reason
        else:
            families.append(family)
        success.add_metric(label, float(not isinstance(family, ViewRefusal)))
        if reading.seconds is not None:
            durations.add_metric(label, reading.seconds)
        if not isinstance(reading.rows, ViewRefusal):
            rows.add_metric(label, len(reading.rows))
    own = [_up(1), _took(seconds), success, durations, rows]
    return Exposition([*own, *process, *families], refused)


def compose_blind(*, process: Sequence[Metric], seconds: float) -> Exposition:
    """Return the exposition of a pass that could not read the database."""
    return Exposition([_up(0), _took(seconds), *process])


def names_of(families: Iterable[Metric]) -> frozenset[str]:
    """Return the names that these families and the exporter occupy, which no view may have."""
    return OWN_NAMES | taken_names([(family.name, family.type) for family in families])


def family_of(reading: ViewReading, *, max_rows: int) -> Metric | ViewRefusal:
    """Return the family of a view, or the reason why it is left out."""
    if isinstance(reading.shape, ViewShape) and not isinstance(reading.rows, ViewRefusal):
        return build_family(reading.shape, reading.rows, max_rows=max_rows)
    refusal = reading.rows if isinstance(reading.shape, ViewShape) else reading.shape
    assert isinstance(refusal, ViewRefusal)
    return refusal


def _up(value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily("pulse_exporter_up", _HELP["pulse_exporter_up"], value=value)


def _took(seconds: float) -> GaugeMetricFamily:
    name = "pulse_exporter_scrape_duration_seconds"
    return GaugeMetricFamily(name, _HELP[name], value=seconds)


def _own(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, _HELP[name], labels=labels)
