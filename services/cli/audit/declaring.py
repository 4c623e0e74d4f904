"""`pulse audit declare-loss`: a person declares which blocks are lost, so that a stopped sealer goes on.

signed checkpoints (memory, anchors) ─▶ largest log that agrees ─▶ cut the rest ─▶ signed entry ─▶ sealing goes on
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import typer

from services.cli.audit.app import app, as_sealer
from services.cli.audit.entries import add_entry, committed, one_line, read_standing, remembered, sealing_lease
from services.cli.audit.places import checkpoint_directory, key_file
from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.ops_worker.sealing.anchors import FileAnchor
from services.shared import db
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.chain import Chain
from services.shared.sealed_log.chain_reading import read_chain
from services.shared.sealed_log.entry import Entry, Extent
from services.shared.sealed_log.kept import Kept, read_kept
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.memory import MemoryFault
from services.shared.sealed_log.note import SignerKey


class Loss(NamedTuple):
    """Number of blocks that agree with the signed checkpoints, the largest lost tree, and the fault after them."""

    agreed: int
    lost: Extent | None
    fault: str | None


@app.command("declare-loss")
def declare_loss(
    *,
    reason: Annotated[str, typer.Option(help="What happened to the log, for the record.")],
    at: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of blocks to keep, as this command prints it without --at."),
    ] = None,
) -> None:
    """Declare lost blocks, so that a stopped sealer goes on.

    A sealer stops if the log is not what it signed. Make a physical backup of the database first. Run the command
    on the machine of the ops worker, with the log's key. Without --at it reports how many blocks agree with all
    signed checkpoints. With --at it removes the blocks after them and writes a signed entry with the lost
    checkpoints, your name and your reason. Rows that still exist are sealed again, with the present time.
    """
    home = Home.find()
    keys, directory = key_file(home), checkpoint_directory(home)
    if not reason.strip():
        raise CommandFailed("--reason is empty: say what happened to the log")
    with one_line():
        key = keys.find()
        if key is None:
            raise CommandFailed(
                f"there is no key in {keys.path}: create a new one with `pulse audit rotate-key --lost`"
            )
        kept = read_kept(directory, keys.verifiers())
        entry = as_sealer(lambda pool: declare(pool, keys, key, kept, at=at, reason=reason))
        note = as_sealer(lambda pool: pool.fetchval("select note from audit.newest_checkpoint()"))
        as_sealer(lambda _: FileAnchor(directory).keep(note))
    print(f"The log {entry.in_words()}.")
    print("A running ops worker goes on sealing. Close the alert audit:log when you have kept the evidence.")


async def declare(
    pool: db.Pool, keys: KeyFile, key: SignerKey, kept: Sequence[Kept], *, at: int | None, reason: str
) -> Entry:
    """Cut the log back to the blocks that agree and write the entry. Raises CommandFailed, KeyFault, MemoryFault."""
    async with sealing_lease(pool) as lease:
        loss = await find_loss(pool, keys, kept)
        if at != loss.agreed:
            raise CommandFailed(f"{_in_words(loss)}; nothing was changed: to declare this, add --at {loss.agreed}")
        if not await pool.fetchval("select audit.cut_log($1, $2, $3)", lease.holder, lease.number, loss.agreed):
            raise CommandFailed("another process sealed meanwhile: try again")
        standing = await read_standing(pool, keys)
        standing.require_key(key, keys)
        alarm = keys.memory.forget_damage().alarm
        before = [one.signed_at for one in (*kept, *remembered(keys))] + ([] if alarm is None else [alarm.raised_at])
        # The entry must be later than the alarm and every lost checkpoint, even if another clock was ahead.
        made_at = max([datetime.now(UTC), *(one + timedelta(microseconds=1) for one in before)])
        entry = standing.entry(key, "loss", lost=loss.lost, reason=reason, made_at=made_at)
        await add_entry(pool, lease, keys, key, entry)
    return entry


async def find_loss(pool: db.Pool, keys: KeyFile, kept: Sequence[Kept]) -> Loss:
    """Check the log against all signed checkpoints.

    Raises CommandFailed if nothing is lost and the sealer has not stopped, and KeyFault and MemoryFault.
    """
    head = await pool.fetchrow("select * from audit.read_head()")
    memory = keys.memory.forget_damage()
    signed = [*kept, *remembered(keys)]
    within = {one for one in (*kept, *committed(keys)) if one.tree_size <= head["tree_size"]}
    chain = Chain(keys.verifiers(), sorted(within))
    fault = None
    try:
        await read_chain(pool, chain)
    except Broken as broken:
        fault = str(broken)
    agreed = chain.size if fault is None else chain.trusted
    entries = [entry for entry in chain.entries if entry.size < agreed]
    beyond = [
        Extent(one.tree_size, one.root)
        for one in signed
        if one.tree_size > agreed and not any(entry.leaves_out(one.tree_size, one.signed_at) for entry in entries)
    ]
    if head["tree_size"] > agreed and head["root"] is not None:
        beyond.append(Extent(head["tree_size"], head["root"]))
    lost = max(beyond, key=lambda one: one.tree_size, default=None)
    try:
        is_settled = keys.memory.read().alarm is None and not memory.is_missing
    except MemoryFault:
        is_settled = False
    if lost is None and fault is None and is_settled and (agreed > 0 or not head["is_begun"]):
        raise CommandFailed("nothing to declare: the log is as it was signed, and the sealer has not stopped")
    return Loss(agreed, lost, fault)


def _in_words(loss: Loss) -> str:
    agrees = f"the log agrees with what was signed up to checkpoint {loss.agreed}"
    if loss.lost is not None:
        agrees += f"; checkpoints {loss.agreed + 1} to {loss.lost.tree_size} would be declared lost"
    return agrees if loss.fault is None else f"{agrees} ({loss.fault})"
