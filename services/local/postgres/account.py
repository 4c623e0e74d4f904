"""The system user that runs the embedded server: Postgres refuses to run as root."""

import grp
import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cli.errors import CommandFailed
from services.local.process.command import SpawnOptions

CREATED_USER = "pulse-pg"
USERADD = "/usr/sbin/useradd"
CANDIDATES = ("postgres", CREATED_USER)


@dataclass(frozen=True, slots=True)
class Account:
    """User of this machine. `switch`: child processes must change to it."""

    name: str
    uid: int
    gid: int
    switch: bool

    def spawn_options(self) -> SpawnOptions:
        """Return the options of subprocess.Popen, none if this process already runs as the user."""
        if not self.switch:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path, *, mode: int) -> None:
        """Give a file or directory of ours to the account."""
        path.chmod(mode)
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, directory: Path) -> bool:
        """Return whether the account can enter the directory. The kernel decides, by ACLs and mounts."""
        return not self.switch or self.succeeds(["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)])

    def succeeds(self, argv: Sequence[str]) -> bool:
        """Return whether the command exits with 0 if the account runs it."""
        try:
            done = subprocess.run(
                argv,
                check=False,
                cwd="/",
                env={"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                **self.spawn_options(),
            )
        except PermissionError:
            return False
        return done.returncode == 0


def find_account(data: Path | None = None) -> Account:
    """Return the account for the server: the owner of existing data, else see _choose. Raises CommandFailed."""
    uid = os.geteuid()
    owner = data.stat().st_uid if data is not None else None
    if uid == 0:
        return _choose() if owner in (None, 0) else _by_uid(owner, switch=True)
    if owner not in (None, uid):
        raise CommandFailed(f"{data} belongs to {_by_uid(owner, switch=True).name}: run pulse as this user or as root")
    return _by_uid(uid, switch=False)


def _choose() -> Account:
    """Return the account that root uses for new data: PULSE_PG_USER, `postgres`, or a new system user."""
    wanted = os.environ.get("PULSE_PG_USER")
    for name in (wanted,) if wanted else CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise CommandFailed("PULSE_PG_USER must not be root: Postgres refuses to run as root")
        return _account(entry, switch=True)
    if wanted:
        raise CommandFailed(f"PULSE_PG_USER names {wanted}, which is no user of this machine")
    return _create_account()


def _by_uid(uid: int, *, switch: bool) -> Account:
    try:
        return _account(pwd.getpwuid(uid), switch=switch)
    except KeyError:
        raise CommandFailed(
            f"user id {uid} has no name on this machine, which Postgres needs: add the user or set PULSE_DATABASE_URL"
        ) from None


def _account(entry: pwd.struct_passwd, *, switch: bool) -> Account:
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, switch=switch)


def _create_account() -> Account:
    shell = next((path for path in ("/usr/sbin/nologin", "/sbin/nologin") if Path(path).exists()), "/bin/false")
    options = ["--system", "--no-create-home", "--shell", shell]
    try:
        grp.getgrnam(CREATED_USER)
        options += ["--gid", CREATED_USER]
    except KeyError:
        options.append("--user-group")
    try:
        done = subprocess.run([USERADD, *options, CREATED_USER], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise CommandFailed(
            "Postgres refuses to run as root and useradd is missing: set PULSE_PG_USER to another user"
        ) from None
    if done.returncode != 0:
        raise CommandFailed(f"cannot create the user {CREATED_USER} for Postgres: {done.stderr.strip()}")
    return _account(pwd.getpwnam(CREATED_USER), switch=True)
