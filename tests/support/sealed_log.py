"""A sealed log to check and to tamper with: blocks of several months, checkpoints kept outside the database."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import asyncpg

from services.ops_worker.sealing.anchors import FileAnchor
from services.ops_worker.sealing.sealer import Sealer
from services.shared import db
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.kept import read_kept
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.note import SignerKey, VerifierKey
from services.shared.sealed_log.tree import root_of
from services.shared.sealed_log.verification import Report, Verification

MONTHS = ("2026-01-15 08:00Z", "2026-01-20 09:30Z", "2026-02-10 10:00Z")


@dataclass(slots=True)
class SealedLog:
    """A sealed log. conn is a superuser's, writer the sealer's pool, reader the auditor's."""

    conn: asyncpg.Connection
    writer: db.Pool
    reader: db.Pool
    home: Path
    sealer: Sealer

    @property
    def checkpoints(self) -> Path:
        """Directory of the kept checkpoints."""
        return self.home / "checkpoints"

    @property
    def public_keys(self) -> Sequence[VerifierKey]:
        """The public keys to trust."""
        return self.sealer.keys.verifiers()

    async def write(self, count: int = 1, *, timestamp: str = "now", tenant: str = "acme") -> None:
        """Write the given number of events in one transaction."""
        await self.conn.execute(
            "select audit.write(array(select audit.event($2, 'alert.opened', p_entity_id => n::text,"
            " p_entity_type => 'device', p_entity_name => 'pump', p_actor_type => 'user', p_actor_id => 'ada',"
            " p_actor_name => 'Ada', p_ip_address => '10.0.0.7', p_trace_id => '0af7651916cd43dd8448eb211c80319c',"
            " p_duration_ms => n + 0.25, p_timestamp => $3::text::timestamptz + n * interval '1 ms',"
            " p_details => jsonb_build_object('n', n + 1.0)) from generate_series(1, $1) n))",
            count,
            tenant,
            timestamp,
        )

    async def seal(self) -> None:
        """Run a pass of the sealer and keep its checkpoint."""
        await self.sealer.seal(self.writer)
        newest = await self.writer.fetchrow("select tree_size, note from audit.newest_checkpoint()")
        if newest is not None:
            await FileAnchor(self.checkpoints).keep(newest["note"])

    async def fill(self) -> None:
        """Run five passes, with blocks in two months of 2026 that have partitions, and in the present month."""
        for timestamp in MONTHS:
            await self.write(1, timestamp=timestamp)
        await self.conn.execute("select * from ops.ensure_partitions()")
        for timestamp in (*MONTHS, "now", MONTHS[0]):
            await self.write(4, timestamp=timestamp)
            await self.write(2, timestamp=timestamp, tenant="umbrella")
            await self.write(1, timestamp=MONTHS[2])
            await self.seal()

    async def verify(
        self, *, keys: Sequence[VerifierKey] | None = None, since: datetime | None = None, independent: bool = False
    ) -> Report:
        """Return the report of `pulse audit verify`."""
        trusted = self.public_keys if keys is None else keys
        try:
            kept = read_kept(self.checkpoints, trusted)
        except Broken as fault:
            report = Report()
            report.add(fault)
            return report
        return await Verification(self.reader, trusted, kept, since, independent).run()


def make_sealer(home: Path, *, holder: str = "one", rows: int = 1000) -> Sealer:
    """Return a sealer whose key is in this directory."""
    keys = KeyFile(home / "signing.key", "pulse.test/audit")
    keys.load()
    return Sealer(holder, keys, rows_per_pass=rows, lease_seconds=10.0)


async def bury(log: SealedLog, key: SignerKey, *, segment: str, blocks: list[asyncpg.Record]) -> str:
    """Insert a tombstone over blocks."""
    first, last, rows = blocks[0][0], blocks[-1][0], sum(row[1] for row in blocks)
    root = base64.b64encode(root_of([row[2] for row in blocks])).decode()
    size = await log.conn.fetchval("select count(*) from audit.blocks")
    text = (
        f"{key.name}\ntombstone {segment}\nblocks {first}-{last}\nrows {rows}\nroot {root}\ntree {size}\n"
        "released 2026-11-01T00:00:00.000000Z\n"
    )
    await log.conn.execute(
        "insert into audit.tombstones values ($1::text::date, $2, $3, $4, now(), $5)",
        segment,
        last,
        first,
        rows,
        key.sign(text),
    )
    return text
