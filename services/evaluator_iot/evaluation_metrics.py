"""Metrics of the evaluator's passes, besides those of all workers."""

from prometheus_client import Counter, Gauge

from services.shared.metrics import ProcessMetrics

EVALUATE = "evaluate"
EVALUATE_BACKLOG = "evaluate_backlog"


class EvaluationMetrics:
    """Pairs evaluated, the current share of the limits, and the tenants that are evaluated apart."""

    def __init__(self, process: ProcessMetrics) -> None:
        labels, registry = ["service", "operation"], process.registry
        self._service = process.service
        self.registry = registry
        self._pairs = Counter(
            "pulse_evaluator_pairs_total", "Pairs of a reading and a rule evaluated.", labels, registry=registry
        )
        self._share = Gauge(
            "pulse_evaluator_pass_share_ratio",
            "Share of the limits that the newest pass got. It falls after slow and failed passes.",
            labels,
            registry=registry,
        )
        self._busy = Gauge(
            "pulse_evaluator_busy_tenants",
            "Tenants with more work than their share, or with failed passes, that are evaluated apart.",
            ["service"],
            registry=registry,
        )
        self._failing = Gauge(
            "pulse_evaluator_failing_tenants",
            "Tenants whose last three passes failed.",
            ["service"],
            registry=registry,
        )
        for operation in (EVALUATE, EVALUATE_BACKLOG):
            self._pairs.labels(self._service, operation)
            self._share.labels(self._service, operation).set(1)
        self.tenants_are(busy=0, failing=0)

    def pass_begins(self, operation: str, *, share: float) -> None:
        """Show the share of the limits that the pass gets."""
        self._share.labels(self._service, operation).set(share)

    def pairs_evaluated(self, operation: str, pairs: int) -> None:
        """Count the work of a pass."""
        self._pairs.labels(self._service, operation).inc(pairs)

    def tenants_are(self, *, busy: int, failing: int) -> None:
        """Show how many tenants are evaluated apart."""
        self._busy.labels(self._service).set(busy)
        self._failing.labels(self._service).set(failing)
