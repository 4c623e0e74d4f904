"""Real servers with a TCP port, including a standby, and a proxy whose target can change, all stopped by pid."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg

from services.local.postgres.account import Account, find_account
from services.local.postgres.binaries import reachable_binaries
from tests.support.processes import free_port
from tests.support.wait import until

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "16MB",
    "log_min_messages": "fatal",
}


@dataclass(slots=True)
class Node:
    """One server. Every role may log in from loopback, by password if `passwords` is set."""

    home: Path
    account: Account
    binaries: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "log"

    def url(self, user: str = "postgres", database: str = "postgres", query: str = "") -> str:
        """URL of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{query}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs as its user."""
        argv = [str(self.binaries / program), *arguments]
        options = self.account.spawn_options()
        subprocess.run(argv, check=True, capture_output=True, cwd="/", env=_ENVIRONMENT, **options)

    async def start(self, **settings: str) -> None:
        """Start it and return when it takes connections."""
        chosen = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.home), **settings}
        arguments = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.binaries / "postgres",
                "-D",
                self.data,
                *arguments,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_ENVIRONMENT,
                **self.account.spawn_options(),
            )
        await until(self.answers, seconds=30)

    async def answers(self) -> bool:
        """Return whether the server takes a connection now."""
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text(errors="replace")[-2000:]
        try:
            connection = await asyncpg.connect(self.url(), timeout=2)
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser, each in its own transaction."""
        connection = await asyncpg.connect(self.url(database=database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    def send(self, number: signal.Signals) -> None:
        """Signal the server and its backends, which are its child processes."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in (self.process.pid, *map(int, children.split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it."""
        if self.process is not None and self.process.returncode is None:
            self.send(signal.SIGCONT)
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.wait(), 20)

    async def standby(self, home: Path) -> "Node":
        """Return a server that follows this one."""
        node = Node(make_home(home, self.account), self.account, self.binaries)
        source = f"host=127.0.0.1 port={self.port} user=postgres"
        options = ["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"]
        await asyncio.to_thread(node.run, "pg_basebackup", "-d", source, "-D", str(node.data), *options)
        await node.start()
        return node

    async def promote(self) -> None:
        """Promote a standby to primary."""
        await self.execute("select pg_promote()")


def make_home(path: Path, account: Account) -> Path:
    """Return a directory that belongs to the server's user."""
    path.mkdir()
    account.own(path, mode=0o700)
    return path


def make_root() -> Path:
    """Return a directory that the server's user can enter, in memory if possible."""
    root = Path(tempfile.mkdtemp(prefix="pulse-node-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    root.chmod(0o755)
    return root


@asynccontextmanager
async def primary(*, binaries: Path | None = None, encoding: str = "UTF8", **settings: str) -> AsyncIterator[Node]:
    """Yield a new server. Stop the nodes below its directory before the block ends."""
    account = find_account()
    root = make_root()
    node = Node(make_home(root / "first", account), account, binaries or reachable_binaries(account))
    try:
        options = ["-U", "postgres", "--auth=trust", "-E", encoding, "--locale=C", "--no-sync"]
        await asyncio.to_thread(node.run, "initdb", "-D", str(node.data), *options)
        await node.start(**settings)
        yield node
    finally:
        await node.stop()
        shutil.rmtree(root, ignore_errors=True)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Node, Node]]:
    """Yield a primary and its standby."""
    async with primary() as first:
        second = await first.standby(first.home.parent / "second")
        try:
            yield first, second
        finally:
            await second.stop()


class Switch:
    """A TCP proxy whose new connections go to `port`; open connections stay where they are."""

    def __init__(self, port: int) -> None:
        self.target: int | None = port
        """None: connections are taken, and nothing is ever said."""
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Address at which it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def url(self, user: str, database: str = "pulse", query: str = "") -> str:
        """URL of a database through it."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{query}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            if self.target is None:
                await reader.read()
                return
            there = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._links.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
