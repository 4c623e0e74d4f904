"""The sessions behind a lock that a pass could not get, or behind a NOTIFY queue that fills up, for the log."""

import logging
from collections.abc import Sequence

import asyncpg

from services.shared import db

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0


async def find_suspects(pool: db.Pool, *, whole_server: bool = False) -> Sequence[asyncpg.Record]:
    """Return the sessions that block others, then those with the oldest transactions; none if they cannot be read."""
    try:
        async with pool.acquire(timeout=LOOK_SECONDS) as connection:
            sessions: Sequence[asyncpg.Record] = await connection.fetch(
                "select pid, role, state, open_seconds, blocks from ops.lock_suspects($1)",
                whole_server,
                timeout=LOOK_SECONDS,
            )
            return sessions
    except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
        log.debug("sessions not read: %s: %s", type(error).__name__, error)
        return ()


def describe(suspects: Sequence[asyncpg.Record]) -> str:
    """Return one line about the sessions, the most likely first."""
    return "; ".join(
        f"pid {session['pid']} of role {session['role']} ({session['state'] or 'hidden'}"
        + (f", open for {session['open_seconds']:.0f} s" if session["open_seconds"] is not None else "")
        + (f", blocks {session['blocks']}" if session["blocks"] else "")
        + ")"
        for session in suspects
    )
