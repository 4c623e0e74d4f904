"""The sealer's memory: the largest tree that it signed, in a file beside the key.

A database can be rolled back, truncated or replaced, and the key would sign its new content. So each checkpoint is kept
here durably before its signature leaves the process:

keep {head, pending} ─▶ append to the database ─▶ keep {head := pending}

kept but not committed   The database ends at `head`. Only `pending` may follow: the same blocks with the same signature
                         are appended again. A second tree of that size is never signed.
committed but not kept   Impossible for a checkpoint. If only the last step is missing, the database ends at `pending`,
                         which then becomes `head`.
"""

import base64
import fcntl
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import orjson

from services.shared import write_once
from services.shared.sealed_log.entry import Extent
from services.shared.sealed_log.note import BadNote, Checkpoint, parse_unchecked

FORMAT = "pulse.audit.memory.v1"


class MemoryFault(Exception):
    """Raised if the file cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A signed checkpoint with everything to append it. base: the log before it. blocks, event, signed: as JSON."""

    base: Extent
    blocks: Sequence[Mapping[str, Any]]
    event: Mapping[str, Any] | None
    signed: Mapping[str, Any]

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, with its signature unchecked. Raises BadNote."""
        return parse_unchecked(self.signed["note"])

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        base = {"tree_size": self.base.tree_size, "root": base64.b64encode(self.base.root).decode()}
        return {"base": base, "blocks": self.blocks, "event": self.event, "signed": self.signed}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Return the intent in its JSON form. Raises LookupError, TypeError, ValueError."""
        base = Extent(int(value["base"]["tree_size"]), base64.b64decode(value["base"]["root"], validate=True))
        intent = cls(base, list(value["blocks"]), value["event"], dict(value["signed"]))
        if len(base.root) != 32 or not intent.checkpoint.tree_size == base.tree_size + len(intent.blocks) > 0:
            raise ValueError("the pending blocks do not lead to their checkpoint")
        return intent


@dataclass(frozen=True, slots=True)
class Alarm:
    """The reason and time of the sealer's stop."""

    message: str
    raised_at: datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """The content of the file. head: note of the largest committed checkpoint. source: the file's bytes.

    installation: id of the log's installation, None if it was never kept.
    """

    head: str | None = None
    pending: Intent | None = None
    alarm: Alarm | None = None
    installation: str | None = None
    source: bytes | None = field(default=None, compare=False)

    @property
    def is_missing(self) -> bool:
        """True if there is no file."""
        return self.source is None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint of head, with its signature unchecked. Raises BadNote."""
        return None if self.head is None else parse_unchecked(self.head)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the signed checkpoints: that of head and the pending one."""
        found = [self.checkpoint, None if self.pending is None else self.pending.checkpoint]
        return [one for one in found if one is not None]


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """The file. A change is refused if another process changed the file first."""

    path: Path

    def read(self) -> Memory:
        """Return the content; Memory.is_missing if there is no file. Raises MemoryFault."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Memory()
        except OSError as error:
            raise MemoryFault(f"{self.path}: {error.strerror}") from None
        try:
            return _parse(text)
        except (BadNote, LookupError, TypeError, ValueError, AttributeError):
            raise MemoryFault(
                f"{self.path} is damaged, so it is unknown which tree was signed last: restore a copy, or run "
                "`pulse audit declare-loss`"
            ) from None

    def replace(self, before: Memory, after: Memory) -> Memory | None:
        """Store `after` durably in place of `before`; return None and do nothing if the file has changed.

        Raises MemoryFault.
        """
        text = _render(after)
        try:
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                if self._source() != before.source:
                    return None
                write_once.replace(self.path, text)
            finally:
                os.close(directory)
        except OSError as error:
            raise MemoryFault(f"{self.path}: {error.strerror}") from None
        return replace(after, source=text)

    def forget_damage(self) -> Memory:
        """Return the content; a damaged file counts as empty. Raises MemoryFault."""
        try:
            return self.read()
        except MemoryFault:
            try:
                return Memory(source=self.path.read_bytes())
            except OSError as error:
                raise MemoryFault(f"{self.path}: {error.strerror}") from None

    def _source(self) -> bytes | None:
        with suppress(FileNotFoundError):
            return self.path.read_bytes()
        return None


def _parse(text: bytes) -> Memory:
    value = orjson.loads(text)
    if value == {}:  # as KeyFile.load leaves it
        return Memory(source=text)
    if value["format"] != FORMAT:
        raise ValueError(f"the format is {value['format']}")
    alarm = value["alarm"]
    memory = Memory(
        value["head"],
        None if value["pending"] is None else Intent.parse(value["pending"]),
        None if alarm is None else Alarm(str(alarm["message"]), datetime.fromisoformat(alarm["raised_at"])),
        None if value.get("installation") is None else str(value["installation"]),
        text,
    )
    memory.checkpoints()
    return memory


def _render(memory: Memory) -> bytes:
    alarm = memory.alarm
    value = {
        "format": FORMAT,
        "head": memory.head,
        "pending": None if memory.pending is None else memory.pending.as_json(),
        "alarm": None if alarm is None else {"message": alarm.message, "raised_at": alarm.raised_at.isoformat()},
        "installation": memory.installation,
    }
    return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"
