"""Metrics of the audit trail's writer."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.shared.audit_writer.buffer import Lane
from services.shared.audit_writer.journal import Store
from services.shared.metrics import BUCKETS

_GAUGES = {
    "pulse_audit_spool_usable": "1 while the local disk takes events when the database is away.",
    "pulse_audit_spool_bytes": "Bytes this process holds in the spool.",
    "pulse_audit_spool_records": "Events that wait in the spool.",
}
_COUNTERS = {
    "pulse_audit_events_spooled_total": "Events kept on the local disk for the database.",
    "pulse_audit_events_drained_total": "Events stored from the spools of this process and of dead processes.",
    "pulse_audit_events_blocked_total": "Events that a request waited for and neither the database nor the spool took.",
    "pulse_audit_events_aggregated_total": "Refused requests that share a row with others.",
    "pulse_audit_gaps_total": "Rows written to report lost events.",
}
_BUFFER_GAUGE = "pulse_audit_buffer_events", "Audit events that are not durable yet."
_BUFFER_COUNTERS = {
    "pulse_audit_events_written_total": "Audit events made durable.",
    "pulse_audit_events_dropped_total": "Audit events lost.",
    "pulse_audit_events_quarantined_total": "Audit events that the database refused, stored as quarantine rows.",
    "pulse_audit_write_failures_total": "Writes of audit events that had to be repeated.",
}


class AuditCollector(Collector):
    """Reads the writer when it is scraped, so that an event pays for no metric.

    numbers: values of the metrics without labels, by name. Label buffer: events, auth_failures, telemetry.
    """

    def __init__(self, lanes: Mapping[Lane, Store], numbers: Callable[[], Mapping[str, float]]) -> None:
        self._lanes = lanes
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of each buffer, then those of the process."""
        buffered = GaugeMetricFamily(*_BUFFER_GAUGE, labels=["buffer"])
        counters = [CounterMetricFamily(name, text, labels=["buffer"]) for name, text in _BUFFER_COUNTERS.items()]
        for lane, store in self._lanes.items():
            buffered.add_metric([lane.name], len(lane))
            values = (lane.written, lane.dropped, store.quarantined, store.failures)
            for counter, value in zip(counters, values, strict=True):
                counter.add_metric([lane.name], value)
        yield from (buffered, *counters)
        now = self._numbers()
        yield from (GaugeMetricFamily(name, text, now[name]) for name, text in _GAUGES.items())
        yield from (CounterMetricFamily(name, text, now[name]) for name, text in _COUNTERS.items())


def make_wait_histogram(registry: CollectorRegistry) -> Histogram:
    """Return the histogram of the time that record() takes."""
    return Histogram(
        "pulse_audit_record_wait_seconds",
        "Seconds from an event to the moment it was durable, or given up.",
        buckets=BUCKETS,
        registry=registry,
    )
