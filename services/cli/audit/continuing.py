"""`pulse audit continue`: sealing goes on after a restore, an upgrade or a failover that lost the end of the log."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from services.cli.audit.app import app, as_sealer
from services.cli.audit.entries import (
    Standing,
    add_entry,
    committed,
    one_line,
    read_standing,
    remembered,
    sealing_lease,
)
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
from services.shared.sealed_log.note import SignerKey
from services.shared.visible_text import terminal_text


@app.command("continue")
def continue_sealing(
    *,
    from_checkpoint: Annotated[
        str,
        typer.Option(
            metavar="FILE|N", help="Number of blocks in the restored log, or its kept checkpoints: a file or directory."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Reason why the log moved or lost its end, for the record.")],
) -> None:
    """Continue the sealed log after a restore.

    Run it on the machine of the ops worker, with the log's key and its kept checkpoints. It checks the blocks against
    every checkpoint. Then it writes a signed entry with the old and the new server, the lost checkpoints, your name and
    your reason.
    """
    home = Home.find()
    keys, directory = key_file(home), checkpoint_directory(home)
    with one_line():
        key = keys.find()
        if key is None:
            raise CommandFailed(f"there is no key in {keys.path}: continuing the log takes its key")
        kept = read_kept(directory, keys.verifiers())
        named = None if from_checkpoint.isdecimal() else _named(Path(from_checkpoint), keys)
    if not reason.strip():
        raise CommandFailed("--reason is empty: give the reason why the log moved")
    blocks = int(from_checkpoint) if named is None else None
    entry = as_sealer(
        lambda pool: continue_log(pool, keys, key, kept, blocks=blocks, named=named, reason=reason, directory=directory)
    )
    print(terminal_text(f"The log {entry.in_words()}."))
    print(terminal_text(f"Before: {entry.before}. Now: {entry.after}. A running ops worker goes on sealing."))


async def continue_log(
    pool: db.Pool,
    keys: KeyFile,
    key: SignerKey,
    kept: Sequence[Kept],
    *,
    blocks: int | None,
    named: Sequence[Kept] | None,
    reason: str,
    directory: Path,
) -> Entry:
    """Write the entry and keep its checkpoint. blocks or named identifies the log. Raises CommandFailed."""
    async with sealing_lease(pool) as lease:
        standing = await read_standing(pool, keys)
        _check_names(standing, key, keys, blocks=blocks, named=named)
        lost = await _check_blocks(pool, keys, standing, [*kept, *(named or ())])
        if lost is None and not standing.differences:
            raise CommandFailed("nothing to continue: the log was sealed on this server, and no checkpoint is lost")
        newest = max((one.signed_at for one in (*kept, *remembered(keys))), default=datetime.min.replace(tzinfo=UTC))
        # The entry must be later than every lost checkpoint, even if another clock was ahead.
        made_at = max(datetime.now(UTC), newest + timedelta(microseconds=1))
        entry = standing.entry(key, "continued", lost=lost, reason=reason, made_at=made_at)
        await add_entry(pool, lease, keys, key, entry)
    note = await pool.fetchval("select note from audit.newest_checkpoint()")
    await FileAnchor(directory).keep(note)
    return entry


def _named(file: Path, keys: KeyFile) -> Sequence[Kept]:
    if not file.exists():
        raise CommandFailed(
            f"there is no file {file}: give --from-checkpoint a number of blocks or a file of checkpoints"
        )
    return read_kept(file, keys.verifiers())


def _check_names(
    standing: Standing, key: SignerKey, keys: KeyFile, *, blocks: int | None, named: Sequence[Kept] | None
) -> None:
    """Check that the operator named this log and has its key. Raises CommandFailed."""
    size = standing.head["tree_size"]
    if size == 0:
        raise CommandFailed("nothing is sealed in this database: there is no log to continue")
    standing.require_key(key, keys)
    if blocks is not None and blocks != size:
        raise CommandFailed(f"the log in the database ends at checkpoint {size}, not {blocks}")
    if named is not None and not any(one.tree_size <= size for one in named):
        raise CommandFailed(f"the file holds no checkpoint of the log's first {size} blocks")


async def _check_blocks(pool: db.Pool, keys: KeyFile, standing: Standing, kept: Sequence[Kept]) -> Extent | None:
    """Check the blocks against every checkpoint and return the newest lost head. Raises CommandFailed."""
    size = standing.head["tree_size"]
    within = sorted({one for one in (*kept, *committed(keys)) if one.tree_size <= size})
    try:
        chain = await read_chain(pool, Chain(keys.verifiers(), within))
    except Broken as fault:
        raise CommandFailed(f"the log is not as it was signed: {fault}") from None
    beyond = [
        one
        for one in (*kept, *remembered(keys))
        if one.tree_size > size and not any(entry.leaves_out(one.tree_size, one.signed_at) for entry in chain.entries)
    ]
    newest = max(beyond, key=lambda one: one.tree_size, default=None)
    return None if newest is None else Extent(newest.tree_size, newest.root)
