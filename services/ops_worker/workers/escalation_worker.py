"""Due escalation steps.

waiting ── due, open ──▶ sent ── another step ──▶ waiting
   │  ▲                   └──── last step ──▶ gone
   │  └─ due, silenced: waits for the end of the silence
   └── acknowledged or closed ──▶ gone
"""

import logging
from dataclasses import dataclass

from services.shared import tracing
from services.shared.db import Pool
from services.shared.logging import tell

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EscalationWorker:
    """A pass handles at most batch escalations."""

    batch: int

    async def run(self, pool: Pool) -> int:
        """Handle due escalations, log each in the trace of its alert, and return their number."""
        rows = await pool.fetch(
            "select tenant_id, alert_id, outcome, step_number, channel_id, trace_id from ops.run_escalations($1)",
            self.batch,
        )
        for row in rows:
            with tracing.use_trace_id(row["trace_id"]):
                extras = {name: row[name] for name in ("tenant_id", "alert_id", "step_number", "channel_id")}
                tell(log, logging.INFO, f"escalation {row['outcome']}", extras)
        return len(rows)
