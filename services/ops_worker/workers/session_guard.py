"""Termination of reading transactions that outlived their time-outs, which any role can lift for itself."""

import logging

from services.ops_worker.acting import act_as_system
from services.shared import tracing
from services.shared.db import Pool

log = logging.getLogger(__name__)


async def end_overdue_sessions(pool: Pool) -> int:
    """Run one pass; return the number of sessions ended."""
    with tracing.use_trace_id(None):
        async with act_as_system(pool) as connection:
            ended = await connection.fetch("select pid, role, reason from ops.end_overdue_sessions()")
        for session in ended:
            log.warning(
                "ended session %s of %s: %s",
                session["pid"],
                session["role"],
                session["reason"],
                extra={"pid": session["pid"], "role": session["role"]},
            )
    return len(ended)
