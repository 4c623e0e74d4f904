"""Metrics of the audit trail's buffers."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.shared.audit.lane import Lane
from services.shared.audit.store import Store


class LaneCollector(Collector):
    """Reads the lanes when it is scraped, so that an event pays for no metric. Label buffer: events, auth_failures."""

    def __init__(self, lanes: Mapping[Lane, Store]) -> None:
        self._lanes = lanes

    def collect(self) -> Iterator[Metric]:
        """One sample a lane of each metric."""
        buffered = GaugeMetricFamily("pulse_audit_buffer_events", "Audit events not stored yet.", labels=["buffer"])
        written = CounterMetricFamily("pulse_audit_events_written_total", "Audit events stored.", labels=["buffer"])
        dropped = CounterMetricFamily("pulse_audit_events_dropped_total", "Audit events lost.", labels=["buffer"])
        quarantined = CounterMetricFamily(
            "pulse_audit_events_quarantined_total", "Audit events the database refused as they were.", labels=["buffer"]
        )
        failures = CounterMetricFamily(
            "pulse_audit_write_failures_total", "Writes of audit events that had to be repeated.", labels=["buffer"]
        )
        for lane, store in self._lanes.items():
            buffered.add_metric([lane.name], len(lane))
            written.add_metric([lane.name], lane.written)
            dropped.add_metric([lane.name], lane.dropped)
            quarantined.add_metric([lane.name], store.quarantined)
            failures.add_metric([lane.name], store.failures)
        yield from (buffered, written, dropped, quarantined, failures)
