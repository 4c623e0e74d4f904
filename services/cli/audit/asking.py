"""Requests for evidence: the checkpoint to prove it against, and the record of each read, made before any output."""

from collections.abc import Mapping
from typing import Any

from services.cli.audit.evidence import Evidence, Head, Question
from services.cli.database import operator
from services.cli.errors import CommandFailed
from services.shared import db
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.note import BadNote, Checkpoint, VerifierKey, open_note


async def read_keys(pool: db.Pool) -> list[VerifierKey]:
    """Return the public keys in the database. They are for information: trust a copy from elsewhere."""
    rows = await pool.fetch("select name, public_key from audit.log_keys order by first_used_at, key_id")
    return [VerifierKey(row["name"], row["public_key"]) for row in rows]


async def read_entries(pool: db.Pool, head: Head) -> list[str]:
    """Return the signed notes of all entries that a checkpoint covers."""
    rows = await pool.fetch(
        "select entry from audit.block_headers where entry is not null and block_no < $1 order by block_no",
        head.checkpoint.tree_size,
    )
    return [row["entry"] for row in rows]


async def read_head(pool: db.Pool, kept: Kept | None = None) -> Head:
    """Return the newest checkpoint in the database, or the one that equals a kept one. Raises CommandFailed."""
    row = await pool.fetchrow(
        "select tree_size, note from audit.checkpoints where tree_size = $1 or $1 is null"
        " order by tree_size desc limit 1",
        None if kept is None else kept.tree_size,
    )
    if row is None:
        raise CommandFailed("nothing is sealed yet" if kept is None else f"the database does not know {kept}")
    try:
        checkpoint = Checkpoint.parse(open_note(row["note"], await read_keys(pool))[0])
    except BadNote as fault:
        raise CommandFailed(f"the newest checkpoint is damaged: {fault}; run pulse audit verify") from None
    snapshot = await pool.fetchval(
        "select snapshot from audit.block_headers where block_no = $1", checkpoint.tree_size - 1
    )
    if snapshot is None or (kept is not None and kept.root != checkpoint.root):
        raise CommandFailed("the blocks are not those that were signed; run pulse audit verify")
    return Head(checkpoint, row["note"], snapshot)


async def ask(pool: db.Pool, question: Question, head: Head) -> tuple[Evidence, int]:
    """Record the question and return the evidence with its number of events."""
    evidence = Evidence(pool, question, head)
    count = await evidence.count()
    await record_read(pool, question.as_filter(), count, question.tenant_id)
    return evidence, count


async def record_read(pool: db.Pool, asked: Mapping[str, Any], events: int | None, tenant_id: str | None) -> None:
    """Record the reader in the trail before anything is shown. events: None if their number is not known yet."""
    await pool.execute("select audit.record_read($1, $2, $3, $4)", operator(), asked, events, tenant_id)
