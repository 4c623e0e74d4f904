"""API keys of machines: pulse_key_<tenant>_<secret>, each with a role, scopes and an expiry."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import asyncpg

from services.shared.db import UNAVAILABLE, Actor, Pool
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.stored_tokens import StoredTokens

log = logging.getLogger(__name__)

# A key that another process revoked is refused within 5 s: this time plus one lookup.
LONGEST_MEMORY_SECONDS: Final = 4.0
USE_SECONDS: Final = 5.0

_PARTS = (
    "alerts",
    "audit",
    "channels",
    "deliveries",
    "devices",
    "escalation-policies",
    "routes",
    "rules",
    "traces",
)
_READ_ONLY = ("audit", "traces")
SCOPES: Final = (
    "ingest:write",
    *(f"{part}:read" for part in _PARTS),
    *(f"{part}:write" for part in _PARTS if part not in _READ_ONLY),
)
"""Scopes that a key may have. Keys and revocations have none, because people manage both."""


def actor_id(key_id: int) -> str:
    """Return the actor id of a key, which differs from the id of every person and service."""
    return f"api-key:{key_id}"


class ApiKeys(StoredTokens):
    """Finds the principal of a key and records its use at most once a minute."""

    prefix = "pulse_key_"
    query = (
        "select place, key_id, key_name, role, scopes, expires_at, revoked, is_unused"
        " from ingest.authenticate_api_keys($1, $2)"
    )
    malformed = Refusal("invalid_token", "The API key is malformed.")
    unknown = Refusal("invalid_token", "There is no such API key.")

    def __init__(
        self,
        pool: Callable[[], Pool],
        *,
        remember_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(pool, remember_seconds=min(remember_seconds, LONGEST_MEMORY_SECONDS), clock=clock)
        self._now = now
        self._noting: set[asyncio.Task[None]] = set()

    def judge(self, tenant_id: str, row: asyncpg.Record) -> Principal | Refusal:
        """Return the key's principal, or the refusal of a key that was revoked or has expired."""
        actor = Actor("service", actor_id(row["key_id"]), row["key_name"])
        if row["revoked"]:
            return Refusal("revoked", "The API key was revoked.", tenant_id=tenant_id, actor=actor)
        ends_at = row["expires_at"].timestamp()
        if ends_at <= self._now():
            return Refusal("expired", "The API key has expired.", tenant_id=tenant_id, actor=actor)
        if row["is_unused"]:
            task = asyncio.create_task(self._note_use(tenant_id, row["key_id"]), name="api-key-use")
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)
        return Principal(tenant_id, row["role"], actor, scopes=frozenset(row["scopes"]))

    async def _note_use(self, tenant_id: str, key_id: int) -> None:
        """Record the use. The key works without the record if the database is away or read-only."""
        try:
            async with self._pool().acquire(timeout=USE_SECONDS) as connection:
                await connection.execute(
                    "select ingest.note_api_key_use($1, $2)", tenant_id, key_id, timeout=USE_SECONDS
                )
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            log.warning("use of an API key not recorded: %s", type(error).__name__, extra={"key_id": key_id})
