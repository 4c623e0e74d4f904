"""Ends the leases of delivery workers that vanished, so that their notifications are tried again."""

import logging
from dataclasses import dataclass

from services.shared import tracing
from services.shared.db import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseReaper:
    """A pass ends at most batch leases."""

    batch: int

    async def reap(self, pool: Pool) -> int:
        """One pass; the number of leases ended."""
        with tracing.use_trace_id(None):
            ended = int(await pool.fetchval("select delivery.reap($1)", self.batch))
            if ended:
                log.warning("leases ended: their worker vanished", extra={"leases": ended})
        return ended
