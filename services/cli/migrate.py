"""`pulse migrate`: `alembic upgrade head` as a process, with its output."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from services.cli import database
from services.cli.app import new_app
from services.cli.errors import BadSettingError, CommandFailed
from services.cli.home import CHECKOUT, Home
from services.cli.state_file import NotRunningError
from services.local.postgres.server import EmbeddedPostgres

app = new_app()


@app.command("migrate")
def migrate_database(
    *,
    set_passwords: Annotated[
        bool, typer.Option("--set-passwords", help="Set the passwords of existing roles to PULSE_*_PASSWORD.")
    ] = False,
) -> None:
    """Bring the database up to this checkout.

    Creates the roles, runs the revisions and applies the SQL layer.
    """
    home = Home.find()
    env = dict(os.environ)
    try:
        url = database.migration_url(home)
    except NotRunningError:
        with EmbeddedPostgres(home.postgres) as server:
            client = database.without_client_variables(env)
            asyncio.run(migrate(server.url(), client, say=print, set_passwords=set_passwords))
        return
    asyncio.run(migrate(url, env, say=print, set_passwords=set_passwords))


async def migrate(url: str, env: Mapping[str, str], *, say: Callable[[str], None], set_passwords: bool = False) -> None:
    """Bring roles, tables and SQL layer up to this checkout. say: is called with each line of Alembic's output.

    Raises CommandFailed with Alembic's last lines, and BadSettingError if the URL cannot be used.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "alembic", "-c", str(CHECKOUT / "migrations" / "alembic.ini")),
        *(["-x", "set-passwords=yes"] if set_passwords else []),
        *("upgrade", "head"),
        cwd=CHECKOUT,
        env={**env, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", "PULSE_MIGRATION_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    last, failure = "", list[str]()
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            if failure or line.startswith("FAILED"):
                # The reason may be followed by statements for an administrator to run.
                failure.append(line)
            elif line:
                last = line
                say(line)
        status = await process.wait()
    except asyncio.CancelledError:
        # The migration is one transaction, so an interrupted one changes nothing.
        process.terminate()
        await process.wait()
        raise
    if status != 0:
        reason = "\n".join(failure).removeprefix("FAILED: ").rstrip() or last
        if status == BadSettingError.status and reason:
            raise BadSettingError(reason)
        raise CommandFailed(f"migration failed: {reason or f'exit {status}'}")
