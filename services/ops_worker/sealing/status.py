"""Whether this process seals the audit trail, as its log, /health and /metrics show it."""

import logging
import time
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Gauge

log = logging.getLogger(__name__)

REASONS = ("no_key", "key_fault", "moved", "broken")
# A holder that restarts is away for some seconds, and a worker without a key need not complain about that.
PATIENCE_SECONDS = 60.0


@dataclass(slots=True)
class SealingStatus:
    """The state of one sealer. reason: empty while it seals or another process does."""

    state: str = "starting"
    reason: str = ""
    message: str = ""
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
        """Return what /health shows."""
        shown = {"state": self.state, "reason": self.reason, "message": self.message}
        return {name: value for name, value in shown.items() if value}

    def sealing(self) -> None:
        """This process seals."""
        self._set("sealing", "", "")

    def another(self, holder: str | None) -> None:
        """Another process holds the right to seal."""
        self._another_at = time.monotonic()
        self._set("standby", "", f"{holder or 'another process'} seals the audit trail")

    def refused(self, reason: str, message: str, *, other: str | None = None) -> None:
        """This process may not seal. other: the process that seals meanwhile."""
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
