"""The dispatcher: turns alert events into notification jobs. Each pass is one call; the database decides and stores."""

import logging

from services.shared import settings as shared_settings
from services.shared import tracing
from services.shared.db import Pool
from services.shared.logging import tell
from services.shared.server import Process
from services.shared.worker import Loop

log = logging.getLogger(__name__)

_LOGGED = ("tenant_id", "alert_id", "event_id", "channel_id", "job_id", "reason")


class Dispatcher:
    """Turns alert events into jobs and recorded suppressions."""

    def __init__(self, *, batch_events: int) -> None:
        self._batch_events = batch_events
        self._after = ""

    async def step(self, pool: Pool) -> int:
        """Run one pass and return the number of alert events decided, 0 if there were none."""
        row = await pool.fetchrow("select * from dispatcher.dispatch($1, $2)", self._batch_events, self._after)
        self._after = row["last_tenant"]
        for decision in row["decisions"]:
            with tracing.use_trace_id(decision["trace_id"]):
                extras = {name: decision[name] for name in _LOGGED if name in decision}
                tell(log, logging.INFO, f"notification {decision['decision']}", extras)
        return int(row["events"])


def build(process: Process) -> list[Loop]:
    """Return the loops of the process."""
    settings = process.settings
    assert isinstance(settings, shared_settings.DispatcherSettings)
    dispatcher = Dispatcher(batch_events=settings.dispatcher_batch_events)
    return [
        Loop(
            "dispatch",
            dispatcher.step,
            wake_on="pulse_dispatcher",
            poll_seconds=settings.poll_seconds,
        )
    ]
