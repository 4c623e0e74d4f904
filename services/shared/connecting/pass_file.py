"""The password of a session from a libpq password file, which is read for each connection."""

import re
import stat
from pathlib import Path

_FIELD = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)")


def find_password(path: Path, *, host: str, port: int, dbname: str, user: str) -> str | None:
    """Return the password of the first matching line, or None. A file that other users may read is ignored."""
    try:
        if not is_private(path):
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    wanted = (host, str(port), dbname, user)
    for line in lines:
        if line.startswith("#"):
            continue
        *fields, password = _split(line)
        if len(fields) == len(wanted) and all(
            raw == "*" or _plain(raw) == value for raw, value in zip(fields, wanted, strict=True)
        ):
            return _plain(password)
    return None


def is_private(path: Path) -> bool:
    """Return whether it is a plain file that only its owner can read. Raises OSError."""
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) and not mode & (stat.S_IRWXG | stat.S_IRWXO)


def _split(line: str) -> list[str]:
    """Return four fields and the password, which may contain colons."""
    fields, rest = [], line
    for _ in range(4):
        match = _FIELD.match(rest)
        assert match is not None
        fields.append(match[1])
        rest = rest[match.end() :]
    return [*fields, rest]


def _plain(field: str) -> str:
    return re.sub(r"\\(.)", r"\1", field)
