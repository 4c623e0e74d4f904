"""Embedded Postgres for one machine: for development, tests and the demo, not for production.

    home/            lock (held while the server runs), id, postgres.log
    home/data        cluster, or elsewhere if the server's user cannot enter the home (see places)
    home/socket      the only way to connect: no TCP port is open

The server is a child process in its own session. Ctrl-C does not reach it, and it shuts down when this process ends.
"""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from services.cli.errors import CommandFailed
from services.cli.lock import AlreadyHeldError, hold
from services.local.postgres import cluster as pg_cluster
from services.local.postgres.account import Account, find_account
from services.local.postgres.binaries import major_version, reachable_binaries
from services.local.postgres.places import Places, existing_data, find_places
from services.local.process.command import Command
from services.local.process.log_files import open_log
from services.local.process.tether import tethered

PORT = 5432
"""Part of the socket's name. Each server has its own socket directory."""
START_SECONDS = 30.0
_CREATE_DATABASE = """\
select format('create database %I', :'name')
where not exists (select from pg_database where datname = :'name') \\gexec
"""


class EmbeddedPostgres:
    """Server with its data below `home`. With `durable=False` it is faster, and its data is removed at the stop.

    `bin_dir` names other programs than the wheel's, for example Debian's of an older version. Not safe for threads.
    Start it in the main thread, because the server ends with the thread that started it.
    """

    def __init__(self, home: Path, *, durable: bool = True, bin_dir: Path | None = None) -> None:
        self.home = home.resolve()
        self.port = PORT
        self._durable = durable
        self._given_bin_dir = bin_dir
        self._lock: IO[str] | None = None
        self._places: Places | None = None
        self._account: Account | None = None
        self._bin_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it accepts connections and has the database `pulse`."""
        command = self.prepare()
        with open_log(self.home / "postgres.log") as log:
            self._process = subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env=command.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **command.options,
            )
        try:
            self._wait_ready(self._process)
            self.ensure_database("pulse")
        except BaseException:
            self.stop()
            raise

    def prepare(self) -> Command:
        """Prepare a start or restart: take the lock, and find account, programs, places and cluster."""
        self._take_lock()
        try:
            return self._prepare()
        except BaseException:
            self.release()
            raise

    def stop(self) -> None:
        """Stop the server, by a fast shutdown or after a time an immediate one, and release the lock."""
        process, self._process = self._process, None
        if process is not None:
            for number, seconds in pg_cluster.STOP_SIGNALS:
                process.send_signal(number)
                try:
                    process.wait(seconds)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self.release()

    def release(self) -> None:
        """Release the lock, and remove the files of a throw-away server, after the server has stopped."""
        if self._places is not None and self._places.temporary is not None:
            shutil.rmtree(self._places.temporary, ignore_errors=True)
            self._places = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def url(self, user: str = "postgres", database: str = "pulse") -> str:
        """Return the URL for libpq, asyncpg and, with a driver in the scheme, SQLAlchemy."""
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self.socket_dir), safe='')}&port={PORT}"

    @property
    def pid(self) -> int | None:
        """Pid of the server, None if it does not run."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        return None

    @property
    def places(self) -> Places:
        """Directories of the server."""
        if self._places is None:
            raise CommandFailed("the embedded Postgres has not been started")
        return self._places

    @property
    def socket_dir(self) -> Path:
        """Directory of the socket."""
        return self.places.sockets

    @property
    def bin_dir(self) -> Path:
        """Directory of psql, pg_dump and the other programs of this server."""
        if self._bin_dir is None:
            raise CommandFailed("the embedded Postgres has not been started")
        return self._bin_dir

    def is_ready(self, pid: int) -> bool:
        """Return whether the server with this pid accepts connections."""
        return pg_cluster.is_ready(self.places.data, pid)

    def ensure_database(self, name: str) -> None:
        """Create the database unless it exists. psql does it, because libpq would obey the caller's PG* variables."""
        psql = [str(self.bin_dir / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-v", f"name={name}", "-f", "-"]
        done = subprocess.run(
            [*psql, self.url(database="postgres")],
            check=False,
            cwd="/",
            env=pg_cluster.ENVIRONMENT,
            input=_CREATE_DATABASE,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise CommandFailed(f"cannot create the database {name}: {done.stderr.strip()}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_lock(self) -> None:
        if self._lock is None:
            try:
                self._lock = hold(self.home / "lock")
            except AlreadyHeldError as held:
                raise CommandFailed(f"the embedded Postgres in {self.home} is run by process {held.pid}") from None

    def _prepare(self) -> Command:
        account = self._account = self._account or find_account(existing_data(self.home) if self._durable else None)
        bin_dir = self._bin_dir = self._bin_dir or self._given_bin_dir or reachable_binaries(account)
        places = self._places = self._places or find_places(self.home, account, durable=self._durable)
        pg_cluster.make_cluster(places.data, bin_dir=bin_dir, account=account, durable=self._durable)
        pg_cluster.write_access_rules(places.data, account=account, major=major_version(bin_dir))
        pg_cluster.remove_leftovers(places.data)
        argv = [str(bin_dir / "postgres"), "-D", str(places.data)]
        argv += pg_cluster.settings(durable=self._durable, sockets=places.sockets)
        argv = tethered(argv, on_parent_death=signal.SIGINT, can_run=account.succeeds)
        return Command(argv, pg_cluster.ENVIRONMENT, options=account.spawn_options())

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready(process.pid):
            if process.poll() is not None:
                raise CommandFailed(f"Postgres did not start: {pg_cluster.last_words(self.home / 'postgres.log')}")
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"Postgres was not ready after {START_SECONDS:.0f} s: see {self.home / 'postgres.log'}"
                )
            time.sleep(0.01)
