"""A section of a libpq service file."""

import os
from collections.abc import Mapping
from pathlib import Path

from services.shared.connecting.url import BadUrl


def read_service(name: str, env: Mapping[str, str]) -> dict[str, str]:
    """Return a service in PGSERVICEFILE, else in ~/.pg_service.conf, else in PGSYSCONFDIR. Raises BadUrl."""
    named = env.get("PGSERVICEFILE")
    for path in [Path(named)] if named else _usual_files(env):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            if named:
                raise BadUrl(f"the service file {path} does not exist") from None
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise BadUrl(f"the service file {path} cannot be read: {_reason(error)}") from None
        found = _read_section(lines, name, path)
        if found is not None:
            return found
    raise BadUrl(f"service {name[:60]!r} is in no service file{f' ({named})' if named else ''}")


def _usual_files(env: Mapping[str, str]) -> list[Path]:
    home, system = env.get("HOME") or os.path.expanduser("~"), env.get("PGSYSCONFDIR")  # noqa: PTH111  may have no home
    return [Path(home) / ".pg_service.conf", *([Path(system) / "pg_service.conf"] if system else [])]


def _read_section(lines: list[str], name: str, path: Path) -> dict[str, str] | None:
    """Return the first section of that name, or None."""
    found: dict[str, str] | None = None
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                return found
            found = {} if line == f"[{name}]" else None
        elif found is not None:
            key, separator, value = line.partition("=")
            if not separator or key == "service":
                raise BadUrl(f"line {number} of the service file {path} must say parameter=value, and not service=")
            found.setdefault(key, value)
    return found


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8"
