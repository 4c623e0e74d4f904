"""User tokens that are refused before they expire: the list in memory and its maximum age.

A cached token costs about 1 µs, so the list of revocations is kept in memory too. A request that finds the list older
than RENEW_SECONDS starts to read it again; no timer does, so an idle process does not query the database. A list older
than OLDEST_SECONDS is not used: the request waits for a new one and gets 503 if the database does not answer. This
costs no availability, because every route for users needs the same database.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from services.shared.db import UNAVAILABLE, Pool, replace_stale, retried
from services.ui_iot.auth.claims import LEEWAY_SECONDS
from services.ui_iot.auth.principal import Grant, Principal

log = logging.getLogger(__name__)

# With the time of the query, a revocation is in force within 5 s on every process.
RENEW_SECONDS: Final = 1.0
OLDEST_SECONDS: Final = 4.0
READ_SECONDS: Final = 3.0
# After a failed read, requests are refused for this time without another read.
PAUSE_SECONDS: Final = 0.5
DEFAULT_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Condition:
    """One revocation. A token is refused if it meets every part that is not None."""

    subject: str | None
    session: str | None
    token_id: str | None
    issued_before: float

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Condition":
        """Return the condition of a row."""
        issued_before = math.inf if row["issued_before"] is None else float(row["issued_before"])
        return cls(row["subject"], row["session"], row["token_id"], issued_before)

    def is_met(self, subject: str, grant: Grant) -> bool:
        """Return whether a token of the subject is refused."""
        return (
            (self.subject is None or self.subject == subject)
            and (self.session is None or self.session in grant.sessions)
            and (self.token_id is None or self.token_id == grant.token_id)
            and grant.issued_at < self.issued_before
        )


@dataclass(slots=True)
class _Conditions:
    """A tenant's revocations by the member that they name, so that the cost of a check does not grow with them."""

    of_subject: defaultdict[str | None, list[Condition]] = field(default_factory=lambda: defaultdict(list))
    of_session: defaultdict[str | None, list[Condition]] = field(default_factory=lambda: defaultdict(list))
    of_token: defaultdict[str | None, list[Condition]] = field(default_factory=lambda: defaultdict(list))
    issued_before: float = 0.0

    def add(self, condition: Condition) -> None:
        """Add a revocation."""
        if condition.token_id is not None:
            self.of_token[condition.token_id].append(condition)
        elif condition.session is not None:
            self.of_session[condition.session].append(condition)
        elif condition.subject is not None:
            self.of_subject[condition.subject].append(condition)
        else:
            self.issued_before = max(self.issued_before, condition.issued_before)

    def cover(self, subject: str, grant: Grant) -> bool:
        """Return whether a token of the subject is refused."""
        if grant.issued_at < self.issued_before:
            return True
        found = self.of_subject.get(subject) or self.of_token.get(grant.token_id)
        if found is None and not self.of_session:
            return False
        found = [*self.of_subject.get(subject, ()), *self.of_token.get(grant.token_id, ())]
        for session in grant.sessions:
            found += self.of_session.get(session, ())
        return any(condition.is_met(subject, grant) for condition in found)


def sort_conditions(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, _Conditions]:
    """Return the revocations by tenant."""
    sorted_in: defaultdict[str, _Conditions] = defaultdict(_Conditions)
    for row in rows:
        sorted_in[row["tenant_id"]].add(Condition.read(row))
    return dict(sorted_in)


class Revocations:
    """The revocations of all tenants in the memory of one process."""

    def __init__(self, pool: Callable[[], Pool], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._version: str | None = None
        self._by_tenant: Mapping[str, _Conditions] = {}
        self._read_at = -math.inf
        self._failed_at = -math.inf
        self._reading: asyncio.Task[bool] | None = None

    @property
    def are_new(self) -> bool:
        """The list was read within RENEW_SECONDS."""
        return self._clock() - self._read_at < RENEW_SECONDS

    async def are_known(self) -> bool:
        """Return whether the list is new enough to be used. A list that is too old is read first."""
        age = self._clock() - self._read_at
        if age < RENEW_SECONDS:
            return True
        if age < OLDEST_SECONDS:
            self._start()
            return True
        # Shielded: a client that disconnects must not cancel the read for other requests.
        return await asyncio.shield(self._start())

    async def renew(self) -> bool:
        """Read the list again after a change by this process, and return whether the database answered."""
        if self._reading is not None:
            # This read may have begun before the change was committed.
            await asyncio.shield(self._reading)
        self._failed_at = -math.inf
        return await asyncio.shield(self._start())

    def cover(self, principal: Principal) -> bool:
        """Return whether the principal's token was revoked."""
        conditions = self._by_tenant.get(principal.tenant_id)
        if conditions is None or principal.grant is None:
            return False
        return conditions.cover(principal.actor.id, principal.grant)

    def _start(self) -> asyncio.Task[bool]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="read-revocations")
        return self._reading

    async def _read(self) -> bool:
        started = self._clock()
        if started - self._failed_at < PAUSE_SECONDS:
            return False
        try:
            # A migration may rebuild the function between two reads.
            found = await retried(self._pool(), self._ask)
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            self._failed_at = self._clock()
            log.warning("revocations not read: %s", type(error).__name__)
            with contextlib.suppress(ConnectionError):
                # After a failover, pooled connections may lead to the old server.
                await replace_stale(self._pool(), error)
            return False
        if found is not None:
            self._by_tenant = sort_conditions(found["revocations"])
            self._version = found["version"]
        self._read_at = started
        return True

    async def _ask(self) -> dict[str, Any] | None:
        async with self._pool().acquire(timeout=READ_SECONDS) as connection:
            found: dict[str, Any] | None = await connection.fetchval(
                "select ingest.read_revocations($1)", self._version, timeout=READ_SECONDS
            )
            return found


def lasting_seconds(*, days: int | None, ends_by_itself: bool, max_token_seconds: int) -> float:
    """Return the seconds from now until a revocation may be removed.

    ends_by_itself: the revocation names tokens issued before now, which expire within max_token_seconds.
    """
    if days is not None:
        return days * 86_400.0
    # The clocks may differ by the leeway both when a token is issued and when it is checked.
    return max_token_seconds + 2.0 * LEEWAY_SECONDS if ends_by_itself else DEFAULT_DAYS * 86_400.0
