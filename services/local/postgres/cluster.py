"""Data directory of the embedded server: created once, configured and cleaned up at every start."""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from migrations.role_names import RoleNames
from services.cli.errors import CommandFailed
from services.local.postgres.account import Account
from services.local.postgres.binaries import major_version
from services.local.process import pids

# Nothing is inherited: an empty PGTZ ends every connection, and PGDATA or LC_MESSAGES would change the output.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
# Fast shutdown, then immediate; never SIGKILL, which leaves shared memory behind. Together below the 10 s of a stop.
STOP_SIGNALS = ((signal.SIGINT, 6.0), (signal.SIGQUIT, 2.0))
ORPHAN_SECONDS = 2.0


def make_cluster(data: Path, *, bin_dir: Path, account: Account, durable: bool) -> None:
    """Run initdb if there is no data. It works in a draft directory, which an interruption leaves unused."""
    major = major_version(bin_dir)
    if data.exists():
        written_by = (data / "PG_VERSION").read_text().strip()
        if written_by != str(major):
            raise CommandFailed(
                f"{data} was written by Postgres {written_by}, and this is Postgres {major}: move it away"
            )
        return
    draft = data.with_name("data.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    account.own(draft, mode=0o700)
    made = subprocess.run(
        [bin_dir / "initdb", "-D", draft, *_initdb_options(major, durable=durable)],
        check=False,
        cwd="/",
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        **account.spawn_options(),
    )
    if made.returncode != 0:
        raise CommandFailed(f"initdb failed: {_last_line(made.stderr)}")
    draft.rename(data)


def _initdb_options(major: int, *, durable: bool) -> list[str]:
    """Return options that do not depend on the machine's locales. Before 17, Postgres has no built-in locale."""
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [
        *("-U", "postgres", "-E", "UTF8", "--auth=peer", "--no-instructions"),
        *(locale if major >= 17 else ["--locale=C.UTF-8"]),
        "--data-checksums" if durable else "--no-sync",
    ]


def write_access_rules(data: Path, *, account: Account, major: int) -> None:
    """Let only root and the server's user connect, over the socket and as any role."""
    users = sorted({"root", account.name})
    names = RoleNames.find()
    roles = ["all"] if major >= 16 else ["postgres", names.owner, *names.callers]
    maps = [f'pulse "{user}" {role}' for user in users for role in roles]
    for name, text in (
        ("pg_hba.conf", "local all all peer map=pulse\nlocal replication all peer map=pulse\n"),
        ("pg_ident.conf", "\n".join(maps) + "\n"),
    ):
        draft = data / f"{name}.new"
        draft.write_text(text)
        account.own(draft, mode=0o600)
        draft.rename(data / name)


def remove_leftovers(data: Path) -> None:
    """Stop what an earlier run left running on this data directory. The caller holds the lock of the home.

    A postmaster is stopped by its pid file. Backends that outlived theirs hold the shared memory and block the start.
    """
    pid = _postmaster_pid(data)
    if pid is not None and str(data) in pids.command_line(pid) and not pids.stop([pid], STOP_SIGNALS):
        raise CommandFailed(f"Postgres with pid {pid} does not stop")
    pids.stop(list(_processes_in(data)), [(signal.SIGQUIT, ORPHAN_SECONDS)])
    if pid is not None and psutil.pid_exists(pid):
        # The number belongs to another program by now, and Postgres would take it for its own.
        (data / "postmaster.pid").unlink(missing_ok=True)


def _postmaster_pid(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, IndexError, ValueError):
        return None


def _processes_in(data: Path) -> Iterator[int]:
    """Yield the backends, whose command lines do not show the data directory that they work in."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(data):
                yield process.pid


def settings(*, durable: bool, sockets: Path) -> list[str]:
    """Return the command line options of the server."""
    chosen = {
        "listen_addresses": "",
        "unix_socket_directories": f'"{sockets}"',
        "unix_socket_permissions": "0700",
        "port": "5432",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_destination": "stderr",
        "logging_collector": "off",
        "max_connections": "200",
        "jit": "off",
    }
    if not durable:
        chosen |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "autovacuum"), "off")
        # Shared memory in files of the data directory is removed with it, even after a kill.
        chosen |= {"wal_level": "minimal", "max_wal_senders": "0", "dynamic_shared_memory_type": "mmap"}
    return [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]


def is_ready(data: Path, pid: int) -> bool:
    """Return whether the server with this pid accepts connections, by the status line of its pid file."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def last_words(log: Path) -> str:
    """Return the line of the server's log with the reason of its end."""
    lines = log.read_text(errors="replace").splitlines()[-20:]
    return next((line for line in reversed(lines) if "FATAL" in line), _last_line("\n".join(lines)))


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")
