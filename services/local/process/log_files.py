"""Log files of the local stack: bounded in size, and read for the last message of a process."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO

import orjson

from services.shared.visible_text import terminal_text

LARGEST_BYTES = 10_000_000
GENERATIONS = 3
MODE = 0o640
"""For the owner and a group of log readers, because logs name devices, people and addresses."""


def open_log(log: Path) -> BinaryIO:
    """Open a log for appending, readable by owner and group only, even if it exists with another mode."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE)
    os.fchmod(handle, MODE)
    return os.fdopen(handle, "ab")


def trim(log: Path, *, largest_bytes: int = LARGEST_BYTES) -> None:
    """Move the content of a large log to log.1, that of log.1 to log.2, and so on.

    The writer keeps its open file, so the content is copied and the file truncated. A line written in between is lost.
    """
    if not log.exists() or log.stat().st_size <= largest_bytes:
        return
    for generation in range(GENERATIONS, 1, -1):
        older = log.with_name(f"{log.name}.{generation - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{generation}"))
    with log.open("rb") as source, open_log(log.with_name(f"{log.name}.1")) as copy:
        copy.truncate(0)
        shutil.copyfileobj(source, copy)
    os.truncate(log, 0)


def last_message(log: Path) -> str:
    """Return the last line of the log, or its message if the line is JSON. Empty if there is none."""
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
        return terminal_text(lines[-1].strip())
    return terminal_text(record.get("message", lines[-1]) if isinstance(record, dict) else lines[-1])
