"""Metrics of a worker's passes and listener. Every series exists before the worker has a database."""

import time
from collections import Counter as Counted
from collections.abc import Collection
from functools import partial
from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram

from services.shared.metrics import ProcessMetrics

ListenerState = Literal["connected", "deaf", "polling"]
"""connected: its own notifications arrive. deaf: they do not arrive. polling: PULSE_LISTEN_URL is off."""

ROW_BUCKETS = (0, 1, 10, 100, 1000, 10000)


class WorkerMetrics:
    """The metrics of one worker process; loops: the operations of its loops."""

    def __init__(self, process: ProcessMetrics, *, loops: Collection[str]) -> None:
        if twice := [operation for operation, count in Counted(loops).items() if count > 1]:
            raise ValueError(f"two loops have the operation {twice[0]!r}: each loop of a worker needs a unique one")
        self._service = process.service
        self._processing = process.processing
        labels, registry = ["service", "operation"], process.registry
        self._passes = Counter("pulse_worker_passes_total", "Passes that succeeded.", labels, registry=registry)
        self._failed = Counter("pulse_worker_failed_passes_total", "Passes that failed.", labels, registry=registry)
        in_a_row = "pulse_worker_failed_passes_in_a_row"
        self._in_a_row = Gauge(in_a_row, "Passes that failed since the last success.", labels, registry=registry)
        self._rows = Histogram(
            "pulse_worker_rows_per_pass",
            "Rows handled by each pass, including passes without work.",
            labels,
            buckets=ROW_BUCKETS,
            registry=registry,
        )
        self._age = Gauge(
            "pulse_worker_last_success_age_seconds",
            "Seconds since the last successful pass, or since the start of the process.",
            labels,
            registry=registry,
        )
        self._state = Gauge(
            "pulse_listener_state",
            "1 for the current state of the listener: connected, deaf (polls each second) or polling (switched off).",
            ["service", "state"],
            registry=registry,
        )
        self._restarts = Counter(
            "pulse_listener_restarts_total", "Reconnections of the listener.", ["service"], registry=registry
        )
        self._restarts.labels(self._service)
        self._succeeded_at = dict.fromkeys(loops, time.monotonic())
        for operation in loops:
            self._show(operation)

    def _show(self, operation: str) -> None:
        self._processing(operation)
        for metric in (self._passes, self._failed, self._in_a_row, self._rows):
            metric.labels(self._service, operation)
        self._age.labels(self._service, operation).set_function(partial(self._success_age, operation))

    def _success_age(self, operation: str) -> float:
        return time.monotonic() - self._succeeded_at[operation]

    def pass_ended(self, operation: str, *, rows: int) -> None:
        """Count a successful pass."""
        self._succeeded_at[operation] = time.monotonic()
        self._in_a_row.labels(self._service, operation).set(0)
        self._passes.labels(self._service, operation).inc()
        self._rows.labels(self._service, operation).observe(rows)

    def pass_worked(self, operation: str, *, seconds: float) -> None:
        """Observe the duration of a pass that had work."""
        self._processing(operation).observe(seconds)

    def pass_failed(self, operation: str, *, in_a_row: int) -> None:
        """Count a failed pass and show the number of failures in a row."""
        self._failed.labels(self._service, operation).inc()
        self._in_a_row.labels(self._service, operation).set(in_a_row)

    def listener_is(self, state: ListenerState) -> None:
        """Set the gauge of this state to 1 and the others to 0."""
        for known in get_args(ListenerState):
            self._state.labels(self._service, known).set(known == state)

    def listener_restarted(self) -> None:
        """Count a reconnection."""
        self._restarts.labels(self._service).inc()
