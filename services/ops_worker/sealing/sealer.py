"""The sealer: hashes committed rows into blocks and blocks into the tree, and signs the root.

may it? ─▶ lease ─▶ read head and unsealed rows (one snapshot) ─▶ as remembered? ─▶ hash, sign, keep ─▶ append, fenced
  │ no key   │ another's                                            │ smaller, different              │ another first
  │ moved    └──▶ wait                                              └──▶ alarm, until an operator     └──▶ next pass
  └──▶ report, wait                                                      declares the loss

A key signs any tree, so the last signed one is kept beside the key (services.shared.sealed_log.memory). A log that does
not continue it is not signed.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from services.ops_worker.acting import act_as_system
from services.ops_worker.sealing.history import LONGEST_READ_SECONDS, History, check_rows
from services.ops_worker.sealing.standing import (
    Announcement,
    LogBroken,
    SealingRefused,
    check_beginning,
    check_key,
    check_site,
    recorded_site,
)
from services.ops_worker.sealing.status import SealingStatus
from services.shared import tracing
from services.shared.db import ACQUIRE_SECONDS, UNAVAILABLE, Pool
from services.shared.sealed_log.appending import Appender, Lease, make_blocks
from services.shared.sealed_log.entry import Entry, Site
from services.shared.sealed_log.key_file import KeyFault, KeyFile
from services.shared.sealed_log.memory import Intent, MemoryFault
from services.shared.sealed_log.note import BadNote, Checkpoint, SignerKey

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Sealer:
    """The sealer of a process. A pass seals about rows_per_pass rows at most, or one larger transaction."""

    holder: str
    keys: KeyFile
    rows_per_pass: int
    lease_seconds: float
    history: History = field(init=False)
    status: SealingStatus = field(default_factory=SealingStatus)
    _alarmed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.history = History(self.keys)

    async def seal(self, pool: Pool) -> int:
        """Run one pass; return the number of sealed rows, 0 if there are none or this process may not seal."""
        other = None
        with tracing.use_trace_id(None):
            try:
                key = self.keys.find()
                head, site, other = await self._look(pool)
                check_key(head, key, self.keys)
                if key is None:
                    check_beginning(head, self.keys, is_anchored=self.history.is_anchored)
                else:
                    await self.history.look_up(pool, head)
                    self._check_site(head, site)
                lease = await self._lease(pool)
                if lease is None:
                    self.status.another(other)
                    return 0
                if key is None:
                    # Only the holder of the lease makes the first key, so that two workers do not make two.
                    key = self.keys.load()
                    await self.history.look_up(pool, head)
                async with self._keep_lease(pool):
                    rows = await self._seal(pool, lease, key)
            except SealingRefused as refusal:
                self.status.refused(refusal.reason, str(refusal), other=other)
                return 0
            except (KeyFault, MemoryFault) as fault:
                self.status.refused("key_fault", str(fault))
                return 0
            except LogBroken as broken:
                self.status.refused("broken", str(broken))
                await self._raise_alarm(pool, broken)
                await self.release(pool)  # an operator's command comes next
                raise
        self.status.sealing()
        return rows

    async def release(self, pool: Pool) -> None:
        """Release the lease, so that another process can seal at once. Errors of the database are ignored."""
        with contextlib.suppress(*UNAVAILABLE, asyncpg.PostgresError):
            await pool.execute("select audit.release_seal($1)", self.holder, timeout=1.0)

    async def _look(self, pool: Pool) -> tuple[Mapping[str, Any], Site, str | None]:
        """Return the head, the server, and the name of another sealing process; record a new server."""
        head = await pool.fetchrow("select * from audit.read_head()")
        row = await pool.fetchrow("select * from audit.read_place()")
        site = Site.read(row)
        is_new = head["tree_size"] == 0 and head["epoch"] is not None and any(Site.read(head).differences(site))
        if is_new or not row["is_known"]:
            await pool.execute("select audit.register_epoch()")
        return head, site, None if row["sealer"] == self.holder else row["sealer"]

    async def _lease(self, pool: Pool) -> Lease | None:
        number = await pool.fetchval("select audit.lease_seal($1, $2)", self.holder, self.lease_seconds)
        return None if number is None else Lease(self.holder, number)

    @contextlib.asynccontextmanager
    async def _keep_lease(self, pool: Pool) -> AsyncIterator[None]:
        """Renew the lease for the duration of a pass."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self.lease_seconds / 3)
                with contextlib.suppress(*UNAVAILABLE, asyncpg.PostgresError):
                    await self._lease(pool)

        renewing = asyncio.create_task(renew(), name="seal-lease")
        try:
            yield
        finally:
            renewing.cancel()

    async def _seal(self, pool: Pool, lease: Lease, key: SignerKey) -> int:
        async with (
            pool.acquire(timeout=ACQUIRE_SECONDS) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            head = await connection.fetchrow("select * from audit.read_head()")
            site = Site.read(await connection.fetchrow("select * from audit.read_place()"))
            pieces = await connection.fetch(
                "select *, clock_timestamp() as sealed_at from audit.read_unsealed($1)",
                self.rows_per_pass,
                timeout=LONGEST_READ_SECONDS,
            )
        announcement = check_key(head, key, self.keys)
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            frontier, memory = await self.history.check(connection, head)
            appender = Appender(connection, lease, frontier, memory)
            announcement = announcement or self._check_site(head, site)
            if memory.known.pending is not None:
                # Even without new rows: a signed checkpoint belongs in the log.
                checkpoint = await self._append_again(appender, memory.known.pending)
                rows = 0
            elif announcement is None and not pieces:
                return 0
            elif announcement is not None:
                checkpoint = await self._announce(appender, head, site, announcement, key)
                rows = 0
            else:
                blocks = await asyncio.to_thread(
                    make_blocks, pieces, first=head["tree_size"], position=head["row_count"], epoch=lease.number
                )
                checkpoint = await appender.append(blocks, key)
                rows = sum(block.row_count for block in blocks)
        if checkpoint is None:
            log.info("another process sealed first")
            return 0
        self.history.seen = checkpoint
        self._alarmed = False
        return rows

    async def _append_again(self, appender: Appender, intent: Intent) -> Checkpoint | None:
        """Append signed blocks that are missing in the log because a process or its connection ended."""
        await check_rows(appender.connection, intent)
        log.warning(
            "blocks that were signed and not committed are appended again", extra={"blocks": len(intent.blocks)}
        )
        return await appender.append_intent(intent)

    async def _announce(
        self, appender: Appender, head: Mapping[str, Any], site: Site, announcement: Announcement, key: SignerKey
    ) -> Checkpoint | None:
        before = recorded_site(head, self.keys.verifiers()) or site
        entry = Entry(
            origin=key.name,
            kind=announcement.kind,
            size=appender.frontier.size,
            root=appender.frontier.root(),
            row_count=head["row_count"],
            before=before,
            after=before if announcement.kind == "key" else site,
            old=announcement.old,
            new=None if announcement.old is None else str(key.verifier),
            handover=announcement.handover,
            actor=self.holder,
            reason=announcement.reason,
            made_at=datetime.now(UTC),
        )
        log.warning("the log %s", entry.in_words())
        return await appender.append_entry(entry, key, snapshot=head["snapshot"])

    def _check_site(self, head: Mapping[str, Any], site: Site) -> Announcement | None:
        if head["tree_size"] == 0:
            return None
        try:
            return check_site(head, site, self.history.newest(), self.keys.verifiers())
        except BadNote as fault:
            raise LogBroken(f"the newest entry of the log is damaged: {fault}") from None

    async def _raise_alarm(self, pool: Pool, broken: LogBroken) -> None:
        await self.history.keep_alarm(str(broken))
        if self._alarmed:
            return
        async with act_as_system(pool) as connection:
            await connection.execute("select audit.report_broken_log($1)", str(broken))
        self._alarmed = True
