"""PgBouncer in transaction mode in front of the tests' server."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from services.local.postgres.account import find_account
from services.local.stack import roster
from tests.support.postgres_server import PASSWORD, Server
from tests.support.wait import until

ROLES = ("pulse_app", *roster.ROLES.values())
SERVER_CONNECTIONS = 2
"""So few a role that sessions share them all the time."""

# The installed defaults, with two changes: it ignores no startup parameter, and resets nothing.
_CONFIG = """
[databases]
* = host={server.host} port={server.port}
[pgbouncer]
unix_socket_dir = {home}
listen_port = 6432
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
auth_type = trust
auth_file = {home}/users
"""


@dataclass(frozen=True, slots=True)
class Pooler:
    """A running PgBouncer."""

    socket_dir: Path
    database: str

    def url(self, role: str) -> str:
        """URL of the database through the pooler."""
        return f"postgresql://{role}@/{self.database}?host={self.socket_dir}&port=6432"


@asynccontextmanager
async def pooling(program: str, server: Server, database: str) -> AsyncIterator[Pooler]:
    """Run PgBouncer as the server's user when this process is root, because PgBouncer refuses root."""
    account = find_account()
    with tempfile.TemporaryDirectory(prefix="pulse-pooler-") as made:
        home = Path(made)
        account.own(home, mode=0o700)
        users = "".join(f'"{role}" "{PASSWORD}"\n' for role in ROLES)
        config = _CONFIG.format(server=server, home=home, size=SERVER_CONNECTIONS)
        for name, text in (("users", users), ("pgbouncer.ini", config)):
            (home / name).write_text(text)
            account.own(home / name, mode=0o600)
        with (home / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                program, home / "pgbouncer.ini", stdout=log, stderr=log, cwd="/", **account.spawn_options()
            )
        pooler = Pooler(home, database)

        async def answers() -> bool:
            assert process.returncode is None, (home / "log").read_text()
            try:
                connection = await asyncpg.connect(pooler.url("pulse_app"), statement_cache_size=0)
            except OSError:
                return False
            await connection.close()
            return True

        try:
            await until(answers)
            yield pooler
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
