"""Database lookups of tokens by digest in batches, so that the load does not grow with the number of requests."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import asyncpg

from services.shared.db import Pool

# Lookups in one query. Further ones wait for the next query.
MOST_IN_BATCH = 1000
# Timeout of a query, because all later lookups wait for it.
LOOKUP_SECONDS = 5.0
# Interval of the lookups for addresses with too many failures, which share one query.
HELD_BACK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Question:
    tenant_id: str
    digest: bytes
    answer: asyncio.Future[asyncpg.Record | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class TokenLookup:
    """Finds rows by token digest with one query at a time.

    Requests that arrive while a query runs share the next one, so a flood of unknown tokens takes one connection. The
    query takes arrays of tenants and digests and returns rows with the column `place`.
    """

    def __init__(self, pool: Callable[[], Pool], query: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._query = query
        self._clock = clock
        self._waiting: list[_Question] = []
        self._runner: asyncio.Task[None] | None = None

    async def find(self, tenant_id: str, digest: bytes, *, held_back: bool = False) -> asyncpg.Record | None:
        """Return the row with this token digest, or None. Raises the pool's errors if the database is away.

        held_back: wait for the next tick of HELD_BACK_SECONDS, which all held-back requests of the process share.
        """
        if held_back:
            await asyncio.sleep(HELD_BACK_SECONDS - self._clock() % HELD_BACK_SECONDS)
        question = _Question(tenant_id, digest)
        self._waiting.append(question)
        if self._runner is None:
            self._runner = asyncio.create_task(self._answer_all(), name="token-lookup")
        return await question.answer

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_IN_BATCH], self._waiting[MOST_IN_BATCH:]
                # A canceled request needs no answer.
                await self._answer([question for question in batch if not question.answer.done()])
        finally:
            self._runner = None

    async def _answer(self, questions: Sequence[_Question]) -> None:
        if not questions:
            return
        try:
            rows = await self._fetch(questions)
        except Exception as error:  # noqa: BLE001  # each request handles the failure of its lookup
            for question in questions:
                if not question.answer.done():
                    question.answer.set_exception(error)
            return
        for place, question in enumerate(questions, start=1):
            if not question.answer.done():
                question.answer.set_result(rows.get(place))

    async def _fetch(self, questions: Sequence[_Question]) -> dict[int, asyncpg.Record]:
        tenants = [question.tenant_id for question in questions]
        digests = [question.digest for question in questions]
        # The timeout of acquire() also bounds release(), which would otherwise wait forever for a hung server.
        async with self._pool().acquire(timeout=LOOKUP_SECONDS) as connection:
            found = await connection.fetch(self._query, tenants, digests, timeout=LOOKUP_SECONDS)
        return {row["place"]: row for row in found}
