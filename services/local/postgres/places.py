"""Directories of the embedded server's data and socket.

Both are below the home directory, with three exceptions:
- If the server's user cannot enter the home, as with a checkout in /root, data is in /var/lib/pulse/data/<id>.
- Data of a throw-away server is in /dev/shm, if there is room.
- If the path of the socket is too long for the kernel, the socket is in a directory of /tmp.
The id is a random word in the home. A home that was deleted and created again has a new id and new data, and the old
data is removed.
"""

import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from services.cli.errors import CommandFailed
from services.cli.lock import holder
from services.local.postgres.account import Account
from services.local.postgres.binaries import SHARED, open_directory

# sun_path has 108 bytes on Linux, 104 on macOS, and holds a final zero.
LONGEST_SOCKET_PATH = 103
SHORT = Path("/tmp")  # noqa: S108  the directory created in it has a random name, our owner and mode 0700
MEMORY = Path("/dev/shm")  # noqa: S108  likewise
SOCKET_NAME = ".s.PGSQL.5432.lock"
MEMORY_ROOM_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of one server. `temporary` is removed with a throw-away server."""

    data: Path
    sockets: Path
    temporary: Path | None


def existing_data(home: Path) -> Path | None:
    """Return the data that an earlier start created for this home, None if there is none."""
    found = (data for data in (home / "data", _outside(home) / "data") if data.exists())
    return next(found, None)


def find_places(home: Path, account: Account, *, durable: bool) -> Places:
    """Return the places of the server, created if missing. The caller holds the lock of the home."""
    base = _durable_base(home, account) if durable else _throwaway_base(home, account)
    if not account.can_enter(base):
        raise CommandFailed(f"user {account.name} cannot enter {base}: set PULSE_PG_USER or PULSE_DATABASE_URL")
    sockets = base / "socket"
    if len(os.fsencode(sockets / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
        sockets = SHORT / f"pulse-{home_id(home)}"
    _private_directory(sockets, account)
    return Places(base / "data", sockets, None if durable else base)


def _durable_base(home: Path, account: Account) -> Path:
    """Return the home if it has data or the account can enter it. A checkout that was moved keeps its data."""
    inside = (home / "data").exists()
    if inside or (account.can_enter(home) and not (_outside(home) / "data").exists()):
        return home
    return _outside_base(home)


def _outside(home: Path) -> Path:
    return SHARED / "data" / (_read_id(home) or "none")


def home_id(home: Path) -> str:
    """Return the random word of this home, created on first use."""
    known = _read_id(home)
    if known:
        return known
    (home / "id").write_text(secrets.token_hex(8))
    return home_id(home)


def _throwaway_base(home: Path, account: Account) -> Path:
    """Create a directory in memory if there is room, else below the home. The caller removes it."""
    shm = MEMORY
    try:
        room = os.statvfs(shm)
        in_memory = room.f_bavail * room.f_frsize >= MEMORY_ROOM_BYTES and os.access(shm, os.W_OK | os.X_OK)
    except OSError:
        in_memory = False
    # A home that the server's user cannot enter has its directory elsewhere.
    parent = shm if in_memory else home if account.can_enter(home) else Path(tempfile.gettempdir())
    remove_abandoned(parent)
    base = Path(tempfile.mkdtemp(prefix="pulse-pg-", dir=parent))
    base.chmod(0o755)
    (base / "home").write_text(str(home))
    return base


def remove_abandoned(parent: Path) -> None:
    """Remove files of throw-away servers that were killed: their home is gone or not locked."""
    for base in parent.glob("pulse-pg-*"):
        try:
            home = Path((base / "home").read_text())
            if base.stat().st_uid == os.geteuid() and holder(home / "lock") is None:
                shutil.rmtree(base, ignore_errors=True)
        except OSError:
            continue


def _outside_base(home: Path) -> Path:
    """Return the directory below /var/lib/pulse for a home that only root can enter."""
    root = open_directory(SHARED / "data")
    base = open_directory(root / home_id(home))
    owner = base / "home"
    if owner.exists() and owner.read_text() != str(home) and _read_id(Path(owner.read_text())) == base.name:
        # The checkout was copied with its id, so the copy gets a new id and its own data.
        (home / "id").unlink()
        return _outside_base(home)
    owner.write_text(str(home))
    for other in root.iterdir():
        if other != base and (other / "home").exists() and _is_orphan(Path((other / "home").read_text()), home):
            shutil.rmtree(other, ignore_errors=True)
    return base


def _is_orphan(owner: Path, home: Path) -> bool:
    """Return whether data belongs to an earlier id of this home, or to a home that was deleted.

    A home whose parent is missing may be on a disk that is not mounted.
    """
    return owner == home or (owner.parent.is_dir() and not owner.exists())


def _read_id(home: Path) -> str | None:
    try:
        return (home / "id").read_text().strip()
    except OSError:
        return None


def _private_directory(path: Path, account: Account) -> None:
    """Create a directory that only the account and root can enter. Raises CommandFailed if another user owns it."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if path.is_symlink() or not path.is_dir() or found.st_uid not in (account.uid, os.geteuid()):
            raise CommandFailed(f"{path} belongs to another user: remove it") from None
    account.own(path, mode=0o700)
