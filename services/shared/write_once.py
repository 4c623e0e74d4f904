"""Files that only their owner may read, written whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_once(file: Path, content: bytes) -> bytes:
    """Write the file unless it exists; return its content, which is the first writer's if two write at once."""
    if not file.exists():
        draft = _draft(file, content)
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        else:
            sync_names(file.parent)
            return content
        finally:
            draft.unlink()
    return file.read_bytes()


def replace(file: Path, content: bytes) -> None:
    """Write or overwrite the file in one step."""
    draft = _draft(file, content)
    try:
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_names(file.parent)


def sync_names(directory: Path, sync: Callable[[int], None] = os.fsync) -> None:
    """Make the names in a directory durable, without which a power cut could take a written file."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(handle)
    finally:
        os.close(handle)


def _draft(file: Path, content: bytes) -> Path:
    """Write the content durably to a new file beside the one it is for."""
    file.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft
