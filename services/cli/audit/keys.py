"""`pulse audit keys` and `rotate-key`: the keys that sign checkpoints."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from services.cli.audit.app import app, as_sealer
from services.cli.audit.asking import read_keys
from services.cli.audit.entries import add_entry, one_line, read_standing, sealing_lease
from services.cli.audit.places import key_file, public_keys
from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.ops_worker.sealing.standing import signer_of
from services.shared import db
from services.shared.sealed_log.entry import LOST, Entry
from services.shared.sealed_log.key_file import KeyFile
from services.shared.visible_text import terminal_text


@app.command()
def keys() -> None:
    """Print the public keys for auditors, the newest last."""
    for key in public_keys(Home.find(), None):
        print(terminal_text(key))


def _make_key_for_emptied_log(keys: KeyFile, *, is_begun: bool) -> None:
    if keys.path.exists() or not (is_begun or keys.has_traces()):
        raise CommandFailed("nothing is signed in this database, so no key can be lost")
    names = [one.origin for one in keys.memory.forget_damage().checkpoints()]
    if keys.public_path.exists():
        names += [one.name for one in keys.verifiers()[-1:]]
    KeyFile(keys.path, keys.name or next(iter(names), None)).load()


@app.command("rotate-key")
def rotate_key(
    *,
    lost: Annotated[bool, typer.Option("--lost", help="Replace a key that is lost, without its signature.")] = False,
    reason: Annotated[str, typer.Option(help="With --lost: what happened to the key, for the record.")] = "not given",
) -> None:
    """Sign with a new key from now on.

    The old key signs a handover to the new one, which the sealer writes into the log at its next pass. Older
    checkpoints stay verifiable with the older public keys.
    """
    found = key_file(Home.find())
    with one_line():
        if lost:
            entry = as_sealer(lambda pool: replace_lost_key(pool, found, reason))
            if entry is None:
                print("The database has no log, so no entry was written: continue with `pulse audit declare-loss`.")
            else:
                print(terminal_text(f"The log {entry.in_words()}."))
            print(
                f"Compare the older keys in {found.public_path}, which came from the database, with auditors' copies."
            )
        else:
            if not found.path.exists():
                raise CommandFailed(
                    f"there is no key in {found.path}: the sealer creates it at its first pass; for a lost key, use "
                    "`pulse audit rotate-key --lost`"
                )
            found.rotate()
    print(f"New checkpoints are signed with {found.load().verifier}")
    print(f"Give {found.public_path}, which contains all public keys, to your auditors again.")


async def replace_lost_key(pool: db.Pool, keys: KeyFile, reason: str) -> Entry | None:
    """Take over the log with a key of this machine, which is created if there is none.

    Return None if the tables of the log were emptied, so that no entry can follow. Raises CommandFailed, KeyFault,
    MemoryFault.
    """
    async with sealing_lease(pool) as lease:
        head = await pool.fetchrow("select * from audit.read_head()")
        signer = signer_of(head)
        if signer is None:
            _make_key_for_emptied_log(keys, is_begun=head["is_begun"])
            return None
        own = KeyFile(keys.path, keys.name or signer.name)
        if own.name != signer.name:
            raise CommandFailed(
                f"PULSE_AUDIT_LOG_NAME is {own.name}, and the log is {signer.name}: a log keeps its name"
            )
        key = own.load()
        if key.verifier == signer or own.handover(signer, key.verifier) is not None:
            raise CommandFailed(f"the key in {own.path} is not lost: this key or its successor signed the log")
        for known in await read_keys(pool):
            own.trust(known)
        standing = await read_standing(pool, own)
        place = standing.recorded or standing.site
        change = {"after": place, "old": str(signer), "new": str(key.verifier), "handover": LOST}
        entry = standing.entry(key, "key", reason=reason, made_at=datetime.now(UTC), **change)
        await add_entry(pool, lease, own, key, entry)
    return entry
