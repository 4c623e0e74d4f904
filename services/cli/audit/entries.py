"""Adds an entry to the sealed log from the command line: with the log's key, under the sealer's lease."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from services.cli.errors import LocalError
from services.ops_worker.sealing.standing import LogBroken, check_head, recorded_site
from services.shared import db, tracing
from services.shared.sealed_log.appending import Appender, AppendMemory, Lease
from services.shared.sealed_log.entry import Entry, Site
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.note import BadNote, Checkpoint, SignerKey

LEASE_SECONDS = 30.0
# A sealer that runs holds the lease for 60 s at most; one that refuses to seal holds none.
WAIT_SECONDS = 65.0


@dataclass(frozen=True, slots=True)
class Standing:
    """The head of the log, where it was sealed, and where it is."""

    head: Mapping[str, Any]
    recorded: Site | None
    site: Site

    @property
    def differences(self) -> set[str]:
        """What of server and database is not as it was."""
        return set() if self.recorded is None else set(self.recorded.differences(self.site))


async def read_standing(pool: db.Pool, keys: KeyFile) -> Standing:
    """Return where the log stands. Raises LocalError."""
    await pool.execute("select audit.register_epoch()")
    head = await pool.fetchrow("select * from audit.read_head()")
    site = Site.read(await pool.fetchrow("select * from audit.read_place()"))
    if head["tree_size"] == 0:
        return Standing(head, None, site)
    try:
        return Standing(head, recorded_site(head, keys.verifiers()), site)
    except BadNote as fault:
        raise LocalError(f"the newest entry of the log is damaged: {fault}; pulse audit verify says more") from None


def remembered(keys: KeyFile) -> list[Kept]:
    """Return every checkpoint that the memory beside the key says was signed. Raises MemoryFault."""
    return [_as_kept(one, keys) for one in keys.memory.forget_damage().checkpoints()]


def committed(keys: KeyFile) -> list[Kept]:
    """Return the checkpoint that was signed and committed; what is pending need not be in the log."""
    known = keys.memory.forget_damage().checkpoint
    return [] if known is None else [_as_kept(known, keys)]


def _as_kept(one: Checkpoint, keys: KeyFile) -> Kept:
    return Kept(one.tree_size, one.root, one.row_count, one.signed_at, keys.memory.path.name, "", 0)


@asynccontextmanager
async def sealing_lease(pool: db.Pool) -> AsyncIterator[Lease]:
    """Hold the right to seal; wait for a sealer that has it. Raises LocalError."""
    holder = f"cli:{socket.gethostname()}:{os.getpid()}"
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        number = await pool.fetchval("select audit.lease_seal($1, $2)", holder, LEASE_SECONDS)
        if number is not None:
            break
        if asyncio.get_running_loop().time() > deadline:
            raise LocalError(
                "another process seals this log, so it goes on already: stop that process first, or try again"
            )
        await asyncio.sleep(0.2)
    try:
        yield Lease(holder, number)
    finally:
        await pool.execute("select audit.release_seal($1)", holder)


async def add_entry(pool: db.Pool, lease: Lease, keys: KeyFile, key: SignerKey, entry: Entry) -> None:
    """Append an entry to the log that it names, which settles an alarm and what was pending. Raises LocalError.

    The memory beside the key follows the operator: from here on it knows the log that the entry goes on from.
    """
    head = await pool.fetchrow("select * from audit.read_head()")
    try:
        frontier = check_head({**head, "is_begun": False}, None, keys.verifiers())
    except LogBroken as broken:
        raise LocalError(f"{broken}; pulse audit verify says more") from None
    if (frontier.size, frontier.root()) != (entry.size, entry.root):
        raise LocalError("the log grew meanwhile: another process seals it")
    with tracing.use_trace_id(None):
        async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection:
            memory = AppendMemory(keys.memory, keys.memory.forget_damage(), head["note"], head["installation_id"])
            appender = Appender(connection, lease, frontier, memory)
            added = await appender.append_entry(entry, key, snapshot=head["snapshot"], actor_type="user")
    if added is None:
        raise LocalError("another process sealed meanwhile: try again")
