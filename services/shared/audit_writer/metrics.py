"""Metrics of the audit trail's writer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.shared.audit_writer.buffer import Lane
from services.shared.audit_writer.journal import Store
from services.shared.metrics import BUCKETS


@dataclass(frozen=True, slots=True)
class Numbers:
    """What there is one of a process."""

    spool_usable: bool
    spool_bytes: int
    spool_records: int
    spooled: int
    drained: int
    blocked: int
    aggregated: int
    gaps: int


class AuditCollector(Collector):
    """Reads the writer when it is scraped, so that an event pays for no metric.

    Label buffer: events, auth_failures, telemetry.
    """

    def __init__(self, lanes: Mapping[Lane, Store], numbers: Callable[[], Numbers]) -> None:
        self._lanes = lanes
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """One sample a lane, then what there is one of."""
        yield from self._collect_lanes()
        now = self._numbers()
        yield GaugeMetricFamily(
            "pulse_audit_spool_usable",
            "1 while the local disk takes events when the database is away.",
            now.spool_usable,
        )
        yield GaugeMetricFamily("pulse_audit_spool_bytes", "Bytes this process holds in the spool.", now.spool_bytes)
        yield GaugeMetricFamily("pulse_audit_spool_records", "Events that wait in the spool.", now.spool_records)
        yield CounterMetricFamily(
            "pulse_audit_events_spooled_total", "Events kept on the local disk for the database.", now.spooled
        )
        yield CounterMetricFamily(
            "pulse_audit_events_drained_total", "Events stored from the spool, dead processes' included.", now.drained
        )
        yield CounterMetricFamily(
            "pulse_audit_events_blocked_total",
            "Events waited for in vain: neither the database nor the spool took them.",
            now.blocked,
        )
        yield CounterMetricFamily(
            "pulse_audit_events_aggregated_total", "Refused requests that share a row with others.", now.aggregated
        )
        yield CounterMetricFamily("pulse_audit_gaps_total", "Rows written that say that events were lost.", now.gaps)

    def _collect_lanes(self) -> Iterator[Metric]:
        buffered = GaugeMetricFamily("pulse_audit_buffer_events", "Audit events not durable yet.", labels=["buffer"])
        written = CounterMetricFamily("pulse_audit_events_written_total", "Audit events kept.", labels=["buffer"])
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


def make_wait_histogram(registry: CollectorRegistry) -> Histogram:
    """How long record() took."""
    return Histogram(
        "pulse_audit_record_wait_seconds",
        "Seconds from an event to the moment it was durable, or given up.",
        buckets=BUCKETS,
        registry=registry,
    )
