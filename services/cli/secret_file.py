"""Files that only we may read, written whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_once(file: Path, content: bytes) -> bytes:
    """Write the file unless it exists and return what it holds: of two writers at once, both get the first one's."""
    draft = _draft(file, content)
    try:
        os.link(draft, file)
    except FileExistsError:
        return file.read_bytes()
    finally:
        draft.unlink()
    return content


def replace(file: Path, content: bytes) -> None:
    """Write or overwrite the file in one step."""
    _draft(file, content).replace(file)


def _draft(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    with os.fdopen(handle, "wb") as draft:
        draft.write(content)
    return Path(name)
