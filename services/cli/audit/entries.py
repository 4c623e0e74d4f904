"""Entries that commands add to the sealed log, with the log's key and under the sealer's lease."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from services.cli.database import operator
from services.cli.errors import CommandFailed
from services.ops_worker.sealing.standing import LogBroken, SealingRefused, check_head, check_key, recorded_site
from services.shared import db, tracing
from services.shared.sealed_log.appending import Appender, AppendMemory, Lease
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.entry import Entry, Site
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.key_file import KeyFault, KeyFile
from services.shared.sealed_log.memory import MemoryFault
from services.shared.sealed_log.note import BadNote, Checkpoint, SignerKey
from services.shared.sealed_log.tree import EMPTY_ROOT

LEASE_SECONDS = 30.0
# A running sealer holds the lease for 60 s at most. One that refuses to seal holds none.
WAIT_SECONDS = 65.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Head of the log, the server and database that sealed it, and the present ones."""

    head: Mapping[str, Any]
    recorded: Site | None
    site: Site

    def entry(self, key: SignerKey, kind: str, **members: Any) -> Entry:
        """Return an entry that follows the head of the log, by the user of this command."""
        change: dict[str, Any] = {"before": self.recorded or self.site, "after": self.site, **members}
        return Entry(
            origin=key.name,
            kind=kind,
            size=self.head["tree_size"],
            root=self.head["root"] or EMPTY_ROOT,
            row_count=self.head["row_count"],
            actor=operator(),
            **change,
        )

    def require_key(self, key: SignerKey, keys: KeyFile) -> None:
        """Check that the key is the log's own. Raises CommandFailed."""
        try:
            if check_key(self.head, key, keys) is not None:
                raise CommandFailed("the key was rotated and the log does not know it yet: the rotation comes first")
        except SealingRefused as refusal:
            raise CommandFailed(str(refusal)) from None

    @property
    def differences(self) -> set[str]:
        """Properties of server and database that have changed."""
        return set() if self.recorded is None else set(self.recorded.differences(self.site))


@contextmanager
def one_line() -> Iterator[None]:
    """Turn the faults of key, memory and kept checkpoints into CommandFailed."""
    try:
        yield
    except (KeyFault, MemoryFault, Broken) as fault:
        raise CommandFailed(str(fault)) from None
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror}") from None


async def read_standing(pool: db.Pool, keys: KeyFile) -> Standing:
    """Return the present standing of the log. Raises CommandFailed."""
    await pool.execute("select audit.register_epoch()")
    head = await pool.fetchrow("select * from audit.read_head()")
    site = Site.read(await pool.fetchrow("select * from audit.read_place()"))
    if head["tree_size"] == 0:
        return Standing(head, None, site)
    try:
        return Standing(head, recorded_site(head, keys.verifiers()), site)
    except BadNote as fault:
        raise CommandFailed(f"the newest entry of the log is damaged: {fault}; run pulse audit verify") from None


def remembered(keys: KeyFile) -> list[Kept]:
    """Return every checkpoint in the memory beside the key. Raises MemoryFault."""
    return [_as_kept(one, keys) for one in keys.memory.forget_damage().checkpoints()]


def committed(keys: KeyFile) -> list[Kept]:
    """Return the checkpoint that was signed and committed. A pending one may be missing in the log."""
    known = keys.memory.forget_damage().checkpoint
    return [] if known is None else [_as_kept(known, keys)]


def _as_kept(one: Checkpoint, keys: KeyFile) -> Kept:
    return Kept(one.tree_size, one.root, one.row_count, one.signed_at, keys.memory.path.name, "", 0)


@asynccontextmanager
async def sealing_lease(pool: db.Pool) -> AsyncIterator[Lease]:
    """Hold the lease to seal, after waiting for another holder. Raises CommandFailed."""
    holder = f"cli:{socket.gethostname()}:{os.getpid()}"
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    is_waiting = False
    while True:
        number = await pool.fetchval("select audit.lease_seal($1, $2)", holder, LEASE_SECONDS)
        if number is not None:
            break
        if not is_waiting:
            print(f"another process is sealing this log: waiting for at most {WAIT_SECONDS:.0f} s", file=sys.stderr)
            is_waiting = True
        if asyncio.get_running_loop().time() > deadline:
            raise CommandFailed("another process is sealing this log: stop that process first, or try again")
        await asyncio.sleep(0.2)
    try:
        yield Lease(holder, number)
    finally:
        await pool.execute("select audit.release_seal($1)", holder)


async def add_entry(pool: db.Pool, lease: Lease, keys: KeyFile, key: SignerKey, entry: Entry) -> None:
    """Append an entry to its log, which settles an alarm and a pending checkpoint. Raises CommandFailed.

    The memory beside the key takes over the log that the entry continues.
    """
    head = await pool.fetchrow("select * from audit.read_head()")
    try:
        frontier = check_head({**head, "is_begun": False}, None, keys.verifiers())
    except LogBroken as broken:
        raise CommandFailed(f"{broken}; run pulse audit verify") from None
    if (frontier.size, frontier.root()) != (entry.size, entry.root):
        raise CommandFailed("the log has grown meanwhile: another process is sealing it")
    with tracing.use_trace_id(None):
        async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection:
            memory = AppendMemory(keys.memory, keys.memory.forget_damage(), head["note"], head["installation_id"])
            appender = Appender(connection, lease, frontier, memory)
            added = await appender.append_entry(entry, key, snapshot=head["snapshot"], actor_type="user")
    if added is None:
        raise CommandFailed("another process sealed meanwhile: try again")
