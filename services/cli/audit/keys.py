"""`pulse audit keys` and `pulse audit rotate-key`: the keys that checkpoints are signed with."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from services.cli.audit.app import app, as_sealer
from services.cli.audit.asking import read_keys
from services.cli.audit.entries import add_entry, read_standing, sealing_lease
from services.cli.audit.places import key_file, public_keys
from services.cli.database import operator
from services.cli.errors import LocalError
from services.cli.home import Home
from services.ops_worker.sealing.standing import signer_of
from services.shared import db
from services.shared.sealed_log.entry import LOST, Entry
from services.shared.sealed_log.key_file import KeyFault, KeyFile
from services.shared.sealed_log.memory import MemoryFault
from services.shared.visible_text import terminal_text


@app.command()
def keys() -> None:
    """Print the public keys, the newest last: what an auditor takes away."""
    for key in public_keys(Home.find(), None):
        print(terminal_text(key))


def _make_key_for_emptied_log(keys: KeyFile, *, is_begun: bool) -> None:
    if keys.path.exists() or not (is_begun or keys.has_traces()):
        raise LocalError("nothing is signed in this database: no key can be lost")
    names = [one.origin for one in keys.memory.forget_damage().checkpoints()]
    if keys.public_path.exists():
        names += [one.name for one in keys.verifiers()[-1:]]
    KeyFile(keys.path, keys.name or next(iter(names), None)).load()


@app.command("rotate-key")
def rotate_key(
    *,
    lost: Annotated[
        bool, typer.Option("--lost", help="The log's key is gone: a new one takes over without it.")
    ] = False,
    reason: Annotated[str, typer.Option(help="With --lost: what became of the key; it stays on record.")] = "not given",
) -> None:
    """Sign with a new key from now on.

    The old key signs that it hands over to the new one, and the sealer writes that into the log at its next pass. What
    older keys signed stays verifiable with the public keys on record.
    """
    found = key_file(Home.find())
    try:
        if lost:
            entry = as_sealer(lambda pool: replace_lost_key(pool, found, reason))
            if entry is None:
                print("The database has no log, so nothing is on record: go on with `pulse audit declare-loss`.")
            else:
                print(terminal_text(f"The log {entry.in_words()}."))
            print(
                f"Hold the older keys in {found.public_path}, which came from the database, against auditors' copies."
            )
        else:
            if not found.path.exists():
                raise LocalError(
                    f"there is no key in {found.path}: the sealer makes it at its first pass, or, if the log's key is "
                    "gone, `pulse audit rotate-key --lost` does"
                )
            found.rotate()
    except (KeyFault, MemoryFault) as fault:
        raise LocalError(str(fault)) from None
    print(f"New checkpoints are signed with {found.load().verifier}")
    print(f"Give {found.public_path} to your auditors again: it has the older keys too.")


async def replace_lost_key(pool: db.Pool, keys: KeyFile, reason: str) -> Entry | None:
    """Take over the log with a key of this machine, which is made when there is none.

    None when the tables of the log were emptied: there is nothing that an entry could follow. Raises LocalError,
    KeyFault, MemoryFault.
    """
    async with sealing_lease(pool) as lease:
        head = await pool.fetchrow("select * from audit.read_head()")
        signer = signer_of(head)
        if signer is None:
            _make_key_for_emptied_log(keys, is_begun=head["is_begun"])
            return None
        own = KeyFile(keys.path, keys.name or signer.name)
        if own.name != signer.name:
            raise LocalError(f"PULSE_AUDIT_LOG_NAME is {own.name}, and the log is {signer.name}: a log keeps its name")
        key = own.load()
        if key.verifier == signer or own.handover(signer, key.verifier) is not None:
            raise LocalError(f"the key in {own.path} signed this log, or its successor: it is not lost")
        for known in await read_keys(pool):
            own.trust(known)
        standing = await read_standing(pool, own)
        entry = Entry(
            origin=key.name,
            kind="key",
            size=standing.head["tree_size"],
            root=standing.head["root"],
            row_count=standing.head["row_count"],
            before=standing.recorded or standing.site,
            after=standing.recorded or standing.site,
            old=str(signer),
            new=str(key.verifier),
            handover=LOST,
            actor=operator(),
            reason=reason,
            made_at=datetime.now(UTC),
        )
        await add_entry(pool, lease, own, key, entry)
    return entry
