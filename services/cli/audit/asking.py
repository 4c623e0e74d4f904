"""Asks for evidence: the checkpoint to prove it against, and the record of who asked, made before a byte is given."""

from collections.abc import Mapping
from typing import Any

from services.cli.audit.evidence import Evidence, Head, Question
from services.cli.database import operator
from services.cli.errors import LocalError
from services.shared import db
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.note import BadNote, Checkpoint, VerifierKey, open_note


async def read_keys(pool: db.Pool) -> list[VerifierKey]:
    """The public keys that the database knows; for information, trust another copy."""
    rows = await pool.fetch("select name, public_key from audit.log_keys order by first_used_at, key_id")
    return [VerifierKey(row["name"], row["public_key"]) for row in rows]


async def read_entries(pool: db.Pool, head: Head) -> list[str]:
    """Return the signed notes of all entries below a checkpoint."""
    rows = await pool.fetch(
        "select entry from audit.block_headers where entry is not null and block_no < $1 order by block_no",
        head.checkpoint.tree_size,
    )
    return [row["entry"] for row in rows]


async def read_head(pool: db.Pool, kept: Kept | None = None) -> Head:
    """The newest checkpoint in the database, or the one there that agrees with a kept one. Raises LocalError."""
    row = await pool.fetchrow(
        "select tree_size, note from audit.checkpoints where tree_size = $1 or $1 is null"
        " order by tree_size desc limit 1",
        None if kept is None else kept.tree_size,
    )
    if row is None:
        raise LocalError("nothing is sealed yet" if kept is None else f"the database does not know {kept}")
    try:
        checkpoint = Checkpoint.parse(open_note(row["note"], await read_keys(pool))[0])
    except BadNote as fault:
        raise LocalError(f"the newest checkpoint is damaged: {fault}; pulse audit verify tells more") from None
    snapshot = await pool.fetchval(
        "select snapshot from audit.block_headers where block_no = $1", checkpoint.tree_size - 1
    )
    if snapshot is None or (kept is not None and kept.root != checkpoint.root):
        raise LocalError("the blocks are not those that were signed; pulse audit verify tells more")
    return Head(checkpoint, row["note"], snapshot)


async def ask(pool: db.Pool, question: Question, head: Head) -> tuple[Evidence, int]:
    """The evidence and how many events it holds, after the question was recorded."""
    evidence = Evidence(pool, question, head)
    count = await evidence.count()
    await record_read(pool, question.as_filter(), count, question.tenant_id)
    return evidence, count


async def record_read(pool: db.Pool, asked: Mapping[str, Any], events: int | None, tenant_id: str | None) -> None:
    """Write to the trail who asks, before they see anything. events: None when they are still to come."""
    await pool.execute("select audit.record_read($1, $2, $3, $4)", operator(), asked, events, tenant_id)
