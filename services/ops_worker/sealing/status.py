"""Whether this process seals the audit trail, as its log, /health and /metrics show it."""

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
# A holder that restarts is away for some seconds, and a worker without a key need not complain about that.
PATIENCE_SECONDS = 60.0
_SHOWN_FAULTS = 10


@dataclass(slots=True)
class SealingStatus:
    """The state of one sealer. reason: empty while it seals or another process does."""

    state: str = "starting"
    reason: str = ""
    message: str = ""
    anchor_faults: list[str] = field(default_factory=list)
    """What is wrong with the kept checkpoints, as they were when this process started."""
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
        faults = "; ".join(self.anchor_faults[:_SHOWN_FAULTS])
        shown = {"state": self.state, "reason": self.reason, "message": self.message, "anchor_faults": faults}
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


def skip_on_key_fault(step: Callable[[Pool], Awaitable[int]]) -> Callable[[Pool], Awaitable[int]]:
    """Return the step of a loop beside the sealer, with passes that do nothing while the key cannot be used.

    The sealer reads the same files in each pass and reports the fault: in the log once, in /health and as a metric.
    """

    async def run(pool: Pool) -> int:
        try:
            return await step(pool)
        except (KeyFault, MemoryFault) as fault:
            log.debug("left to the sealer: %s", fault)
            return 0

    return run
