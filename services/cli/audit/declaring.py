"""`pulse audit declare-loss`: the sealer stopped, and a person declares what of the sealed log is lost.

what was signed (memory, anchors) ─▶ how far does the log agree? ─▶ cut the rest ─▶ signed entry ─▶ the sealer goes on
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import typer

from services.cli.audit.app import app, as_sealer
from services.cli.audit.entries import add_entry, committed, read_standing, remembered, sealing_lease
from services.cli.audit.places import checkpoint_directory, key_file
from services.cli.database import operator
from services.cli.errors import LocalError
from services.cli.home import Home
from services.ops_worker.sealing.anchors import FileAnchor
from services.ops_worker.sealing.standing import SealingRefused, check_key
from services.shared import db
from services.shared.sealed_log.broken import Broken
from services.shared.sealed_log.chain import Chain
from services.shared.sealed_log.chain_reading import read_chain
from services.shared.sealed_log.entry import Entry, Extent
from services.shared.sealed_log.kept import Kept, read_kept
from services.shared.sealed_log.key_file import KeyFault, KeyFile
from services.shared.sealed_log.memory import MemoryFault
from services.shared.sealed_log.note import SignerKey
from services.shared.sealed_log.tree import EMPTY_ROOT


class Loss(NamedTuple):
    """How far the log agrees with what was signed, the largest tree beyond that, and why the rest does not agree."""

    agreed: int
    lost: Extent | None
    fault: str | None


@app.command("declare-loss")
def declare_loss(
    *,
    reason: Annotated[str, typer.Option(help="What happened to the log; it stays on record.")],
    at: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of blocks to go on from, as this command names it without --at."),
    ] = None,
) -> None:
    """Let the sealer go on after it stopped because the log is not what it signed.

    Run it on the machine of the ops worker, with the log's key, and keep a physical backup of the database first. It
    finds how many blocks agree with everything that was signed and, without --at, only reports them. With --at it
    removes the blocks after them and writes a signed entry that names the checkpoints that are lost, you and your
    reason. Rows that are still there are sealed anew, with the present time.
    """
    home = Home.find()
    keys, directory = key_file(home), checkpoint_directory(home)
    if not reason.strip():
        raise LocalError("--reason must say what happened to the log")
    try:
        key = keys.find()
        if key is None:
            raise LocalError(f"there is no key in {keys.path}: `pulse audit rotate-key --lost` makes a new one")
        kept = read_kept(directory, keys.verifiers())
        entry = as_sealer(lambda pool: declare(pool, keys, key, kept, at=at, reason=reason))
        note = as_sealer(lambda pool: pool.fetchval("select note from audit.newest_checkpoint()"))
        as_sealer(lambda _: FileAnchor(directory).keep(note))
    except (KeyFault, MemoryFault, Broken) as fault:
        raise LocalError(str(fault)) from None
    except OSError as error:
        raise LocalError(f"{error.filename}: {error.strerror}") from None
    print(f"The log {entry.in_words()}.")
    print("A running ops worker seals from here on. Close the alert audit:log when you have kept the evidence.")


async def declare(
    pool: db.Pool, keys: KeyFile, key: SignerKey, kept: Sequence[Kept], *, at: int | None, reason: str
) -> Entry:
    """Cut the log back to where it agrees and write the entry. Raises LocalError, KeyFault, MemoryFault."""
    async with sealing_lease(pool) as lease:
        loss = await find_loss(pool, keys, kept)
        if at != loss.agreed:
            raise LocalError(f"{_in_words(loss)}; nothing was changed: to declare this, add --at {loss.agreed}")
        if not await pool.fetchval("select audit.cut_log($1, $2, $3)", lease.holder, lease.number, loss.agreed):
            raise LocalError("another process sealed meanwhile: try again")
        standing = await read_standing(pool, keys)
        try:
            if check_key(standing.head, key, keys) is not None:
                raise LocalError("the key was rotated and the log does not know it yet: the rotation comes first")
        except SealingRefused as refusal:
            raise LocalError(str(refusal)) from None
        alarm = keys.memory.forget_damage().alarm
        before = [one.signed_at for one in (*kept, *remembered(keys))] + ([] if alarm is None else [alarm.raised_at])
        entry = Entry(
            origin=key.name,
            kind="loss",
            size=standing.head["tree_size"],
            root=standing.head["root"] or EMPTY_ROOT,
            row_count=standing.head["row_count"],
            before=standing.recorded or standing.site,
            after=standing.site,
            lost=loss.lost,
            actor=operator(),
            reason=reason,
            # Later than the alarm and all that is lost, by whichever clock.
            made_at=max([datetime.now(UTC), *(one + timedelta(microseconds=1) for one in before)]),
        )
        await add_entry(pool, lease, keys, key, entry)
    return entry


async def find_loss(pool: db.Pool, keys: KeyFile, kept: Sequence[Kept]) -> Loss:
    """Hold the log against everything that was signed.

    Raises LocalError when nothing is lost and the sealer has not stopped, KeyFault, MemoryFault.
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
        raise LocalError("nothing to declare: the log is what was signed, and the sealer has not stopped")
    return Loss(agreed, lost, fault)


def _in_words(loss: Loss) -> str:
    agrees = f"the log agrees with what was signed up to checkpoint {loss.agreed}"
    if loss.lost is not None:
        agrees += f"; checkpoints {loss.agreed + 1} to {loss.lost.tree_size} would be declared lost"
    return agrees if loss.fault is None else f"{agrees} ({loss.fault})"
