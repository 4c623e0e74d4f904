"""The state of the sealer in the log, /health and /metrics."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Gauge

from services.shared.db import Pool
from services.shared.sealed_log.key_file import KeyFault
from services.shared.sealed_log.memory import MemoryFault

log = logging.getLogger(__name__)

REASONS = ("no_key", "key_fault", "moved", "broken")
# A restart of the sealing process takes seconds, which a worker without a key need not report.
PATIENCE_SECONDS = 60.0
_SHOWN_FAULTS = 10


@dataclass(slots=True)
class SealingStatus:
    """The state of a sealer. reason: empty while this or another process seals."""

    state: str = "starting"
    reason: str = ""
    message: str = ""
    anchor_faults: list[str] = field(default_factory=list)
    """Faults of the kept checkpoints at the start of this process."""
    _gauge: Gauge | None = field(default=None, init=False)
    _another_at: float | None = field(default=None, init=False)

    def show_in(self, registry: CollectorRegistry) -> None:
        """Register the metric."""
        self._gauge = Gauge(
            "pulse_audit_sealing_refused",
            "Whether this process refuses to seal the audit trail while no other process seals it.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self._gauge.labels(reason)

    def as_dict(self) -> dict[str, str]:
        """Return the members for /health."""
        faults = "; ".join(self.anchor_faults[:_SHOWN_FAULTS])
        shown = {"state": self.state, "reason": self.reason, "message": self.message, "anchor_faults": faults}
        return {name: value for name, value in shown.items() if value}

    def sealing(self) -> None:
        """Record that this process seals."""
        self._set("sealing", "", "")

    def another(self, holder: str | None) -> None:
        """Record that another process holds the lease."""
        self._another_at = time.monotonic()
        self._set("standby", "", f"{holder or 'another process'} seals the audit trail")

    def refused(self, reason: str, message: str, *, other: str | None = None) -> None:
        """Record that this process may not seal. other: the process that seals meanwhile."""
        if reason == "no_key":
            if other is not None:
                self._another_at = time.monotonic()
            if self._another_at is not None and time.monotonic() - self._another_at < PATIENCE_SECONDS:
                self._set("standby", "", f"another process seals the audit trail; this one does not: {message}")
                return
        self._set("refused", reason, message)

    def _set(self, state: str, reason: str, message: str) -> None:
        if (state, reason, message) == (self.state, self.reason, self.message):
            return
        if state == "refused":
            log.error("nothing is sealed: %s", message)
        elif message and self.state != "standby":
            log.info("%s", message)
        self.state, self.reason, self.message = state, reason, message
        if self._gauge is not None:
            for one in REASONS:
                self._gauge.labels(one).set(one == reason)


def skip_on_key_fault(step: Callable[[Pool], Awaitable[int]]) -> Callable[[Pool], Awaitable[int]]:
    """Wrap a step so that its passes do nothing while the key cannot be used.

    The sealer reads the same files in each pass and reports the fault once in the log, in /health and as a metric.
    """

    async def run(pool: Pool) -> int:
        try:
            return await step(pool)
        except (KeyFault, MemoryFault) as fault:
            log.debug("left to the sealer: %s", fault)
            return 0

    return run
