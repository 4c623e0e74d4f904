"""`pulse secrets`: the key of channel secrets, and the secrets sealed for it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from services.cli import database
from services.cli.app import new_app
from services.cli.errors import CommandFailed
from services.cli.home import PROGRAM, Home
from services.cli.secret_keys import add_key, make_keys, secrets_key_file
from services.shared import db
from services.shared.secret_box import (
    BadKeyFile,
    KeyRing,
    NotOpened,
    UnknownKey,
    is_sealed,
    key_id,
    seal_config,
    sealed_for,
)

app = new_app("Seal the secrets of channels with a key outside the database.")
_PAGE = 100


@app.command()
def init() -> None:
    """Create the key file and its public key.

    The file is PULSE_SECRETS_KEY_FILE. If it exists, it is unchanged.
    """
    file = secrets_key_file(Home.find())
    _using(file, lambda: print(f"{file} {'was created' if make_keys(file) else 'exists and is unchanged'}."))


@app.command()
def encrypt() -> None:
    """Seal every secret for the newest key.

    Seals secrets that are stored as plain text or sealed for an older key. Safe to interrupt and repeat.
    """
    file = secrets_key_file(Home.find())
    _using(file, lambda: asyncio.run(_seal_all(KeyRing(file))))


@app.command()
def rotate() -> None:
    """Create a new key and seal every secret for it. Safe to interrupt and repeat.

    Give the new file to the delivery worker before the API gets the new public key. Older keys stay in the file: the
    secrets in backups are sealed for them.
    """
    file = secrets_key_file(Home.find())

    def work() -> None:
        if asyncio.run(_has_older(KeyRing(file))):
            print("Some secrets are sealed for an older key: sealing them for the newest key.")
        else:
            add_key(file)
        asyncio.run(_seal_all(KeyRing(file)))

    _using(file, work)


def _using(file: Path, work: Any) -> None:
    try:
        work()
    except BadKeyFile as fault:
        raise CommandFailed(f"{fault}: create it with {PROGRAM} secrets init") from None
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}") from None
    except asyncpg.PostgresError as error:
        raise CommandFailed(f"the database refuses: {error}") from None


async def _has_older(keys: KeyRing) -> bool:
    assert keys.newest is not None
    known, newest = keys.names, key_id(keys.newest)
    async with database.open_database(database.role_url("delivery")) as pool:
        async for row in _channels(pool):
            members = [value for value in row["config"].values() if is_sealed(value)]
            if any(sealed_for(member) in known - {newest} for member in members):
                return True
    return False


async def _seal_all(keys: KeyRing) -> None:
    """Seal one channel per transaction and print the progress. Raises CommandFailed if some could not be opened."""
    assert keys.newest is not None
    sealed, done, faults = 0, 0, 0
    async with database.open_database(database.role_url("delivery")) as pool:
        async for row in _channels(pool):
            done += 1
            try:
                sealed += await _seal_one(pool, keys, row)
            except (UnknownKey, NotOpened) as fault:
                faults += 1
                print(f"channel {row['channel_id']} of {row['tenant_id']} is unchanged: {fault}")
            if done % _PAGE == 0:
                print(f"{done} channels read, {sealed} sealed …")
    print(f"{done} channels read, {sealed} sealed for key {key_id(keys.newest)}.")
    if faults:
        raise CommandFailed(f"{faults} channels could not be opened: set their secrets again, or restore their key")


async def _seal_one(pool: db.Pool, keys: KeyRing, row: Any) -> int:
    place = {"tenant_id": row["tenant_id"], "channel_id": row["channel_id"]}
    assert keys.newest is not None
    newest = key_id(keys.newest)
    if all(is_sealed(member) and sealed_for(member) == newest for member in row["config"].values()):
        return 0
    new = seal_config(keys.newest, keys.open_config(row["config"], **place), **place)
    # False if the channel was changed meanwhile. That change sealed it, or the next call does.
    query = "select delivery.reseal_channel($1, $2, $3, $4, $5)"
    return int(await pool.fetchval(query, *place.values(), row["config"], new, database.operator()))


async def _channels(pool: db.Pool) -> AsyncIterator[Any]:
    tenant_id, channel_id = "", 0
    query = "select * from delivery.read_channel_secrets($1, $2, $3)"
    while rows := await pool.fetch(query, tenant_id, channel_id, _PAGE):
        for row in rows:
            yield row
        tenant_id, channel_id = rows[-1]["tenant_id"], rows[-1]["channel_id"]
