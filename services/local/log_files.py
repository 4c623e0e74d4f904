"""The log files of the local stack: bounded in size, and read for the last thing a process said."""

import os
import shutil
from pathlib import Path

import orjson

LARGEST_BYTES = 10_000_000
GENERATIONS = 3


def trim(log: Path, *, largest_bytes: int = LARGEST_BYTES) -> None:
    """Move what a large log holds to log.1, .1 to .2, and so on.

    The writer keeps its open file, so the content is copied and the file emptied; every writer appends. A line written
    between the two is lost, which is why an audit trail is no log file.
    """
    if not log.exists() or log.stat().st_size <= largest_bytes:
        return
    for generation in range(GENERATIONS, 1, -1):
        older = log.with_name(f"{log.name}.{generation - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{generation}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)


def last_message(log: Path) -> str:
    """The last line of the log, or its message when it is a JSON line; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    if not lines:
        return ""
    try:
        record = orjson.loads(lines[-1])
    except orjson.JSONDecodeError:
        return lines[-1].strip()
    return str(record.get("message", lines[-1])) if isinstance(record, dict) else lines[-1]
