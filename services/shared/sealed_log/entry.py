"""Entries of the sealed log: signed statements about the log itself, each a leaf of the tree.

pulse.example/audit
pulse.audit.entry.v1 continued
at 120 rows 4711 root UmZjIDY5NjIgcm9vdCBvdmVyIDEyMCBibG9ja3MhISE=
from epoch 0 system 7713863558101060239 timeline 1 database 16384
to epoch 1 system 7713863561104510842 timeline 1 database 16391
lost 130 Kz0xNzA5...=
by "cli:ada"
reason "the disk of db-1 died"
made 2026-01-05T12:00:00.000000Z

— pulse.example/audit Az3grj…

continued: an operator continues the log after a restore. loss: an operator declares after a stop of the sealer what was
lost, possibly nothing. timeline: a standby took over and nothing was lost. key: another key signs from here on; the
entry has the lines old, new and handover instead of lost.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from services.shared.sealed_log.note import BadNote, SignerKey, VerifierKey, open_note, verify_signature

TAG = "pulse.audit.entry.v1"
_LOSS_TAG = "pulse.audit.entry.v2"
"""A program that knows only the first format reports an unknown format, not damage."""
LOST = "lost"
_NUMBER = r"-?\d+|-"
_PLACE = rf"epoch (\d+) system ({_NUMBER}) timeline ({_NUMBER}) database ({_NUMBER})"
_TEXT = re.compile(
    rf"(?P<origin>\S+)\n(?:{re.escape(TAG)}|{re.escape(_LOSS_TAG)}) (?P<kind>continued|loss|timeline|key)\n"
    r"at (?P<size>\d+) rows (?P<rows>\d+) root (?P<root>\S+)\n"
    rf"from (?P<before>{_PLACE})\nto (?P<after>{_PLACE})\n"
    r"(?:lost (?P<lost_size>\d+) (?P<lost_root>\S+)\n)?"
    r"(?:old (?P<old>\S+)\nnew (?P<new>\S+)\nhandover (?P<handover>\S+)\n)?"
    r'by (?P<actor>".*")\nreason (?P<reason>".*")\nmade (?P<made>\S+)\n',
    re.ASCII,
)


class Site(NamedTuple):
    """The place of the trail: epoch of its rows, system identifier, timeline, and oid of the database."""

    epoch: int
    system: int | None
    timeline: int | None
    database: int | None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Return the site in a row of audit.read_place or audit.read_head."""
        return cls(row["epoch"], row["system_identifier"], row["timeline"], row["database_oid"])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the site in its text form. Raises BadNote."""
        found = re.fullmatch(_PLACE, text, re.ASCII)
        if found is None:
            raise BadNote("an entry names no place")
        epoch, *rest = found.groups()
        return cls(int(epoch), *(None if one == "-" else int(one) for one in rest))

    def __str__(self) -> str:
        said = ("-" if one is None else str(one) for one in self)
        return "epoch {} system {} timeline {} database {}".format(*said)

    def differences(self, other: "Site") -> Iterator[str]:
        """Yield the names of the values that both know and that differ."""
        for name, one, another in zip(self._fields, self, other, strict=True):
            if one is not None and another is not None and one != another:
                yield name


class Extent(NamedTuple):
    """A log's size, in blocks, and its root."""

    tree_size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A statement about the log. size, root, row_count: the log before it. old, new: keys. handover: steps, or lost."""

    origin: str
    kind: str
    size: int
    root: bytes
    row_count: int
    before: Site
    after: Site
    lost: Extent | None = None
    old: str | None = None
    new: str | None = None
    handover: str | None = None
    actor: str
    reason: str
    made_at: datetime

    def text(self) -> str:
        """Return the signed text."""
        made_at = self.made_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        lines = [
            self.origin,
            f"{_LOSS_TAG if self.kind == 'loss' else TAG} {self.kind}",
            f"at {self.size} rows {self.row_count} root {_base64(self.root)}",
            f"from {self.before}",
            f"to {self.after}",
        ]
        if self.lost is not None:
            lines.append(f"lost {self.lost.tree_size} {_base64(self.lost.root)}")
        if self.old is not None:
            lines += [f"old {self.old}", f"new {self.new}", f"handover {self.handover}"]
        lines += [f"by {json.dumps(self.actor)}", f"reason {json.dumps(self.reason)}", f"made {made_at}"]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the entry in a signed text. Raises BadNote."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise BadNote("the note is no entry of a log")
        try:
            entry = cls(
                origin=found["origin"],
                kind=found["kind"],
                size=int(found["size"]),
                root=base64.b64decode(found["root"], validate=True),
                row_count=int(found["rows"]),
                before=Site.parse(found["before"]),
                after=Site.parse(found["after"]),
                lost=_lost(found["lost_size"], found["lost_root"]),
                old=found["old"],
                new=found["new"],
                handover=found["handover"],
                actor=json.loads(found["actor"]),
                reason=json.loads(found["reason"]),
                made_at=datetime.fromisoformat(found["made"]),
            )
        except ValueError:
            raise BadNote("the note is no entry of a log") from None
        if entry.text() != text or (entry.kind == "key") != (entry.old is not None):
            raise BadNote("the note is no entry of this log")
        return entry

    def leaves_out(self, tree_size: int, signed_at: datetime) -> bool:
        """Return whether the log continued without blocks that a checkpoint of this size and time covers."""
        return self.lost is not None and self.size < tree_size <= self.lost.tree_size and signed_at < self.made_at

    def in_words(self) -> str:
        """Return a sentence without its full stop."""
        when = f"{self.made_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        if self.kind == "key":
            old, new = (str(one).split("+")[1] for one in (self.old, self.new))
            how = "which was reported lost" if self.handover == LOST else "which handed over to it"
            return (
                f"is signed by key {new} since {when} (checkpoint {self.size}) in place of {old}, {how}: {self.reason}"
            )
        if self.kind == "timeline":
            return f"was continued on {when} from checkpoint {self.size} after a failover, nothing lost: {self.reason}"
        if self.kind == "loss":
            what = f"was declared to go on on {when} from checkpoint {self.size} after a loss: {self.reason}"
        else:
            what = f"was continued on {when} from checkpoint {self.size} after restore: {self.reason}"
        if self.lost is not None:
            what += f" (by {self.actor}; checkpoints {self.size + 1} to {self.lost.tree_size} were lost)"
        else:
            what += f" (by {self.actor})"
        return what


def open_entry(note: str, keys: Iterable[VerifierKey]) -> tuple[Entry, VerifierKey]:
    """Return the entry in a note and the key that signed it under its own name; raises BadNote."""
    known = list(keys)
    text, key = open_note(note, known)
    entry = Entry.parse(text)
    if entry.origin != key.name:
        raise BadNote(f"the entry is of {entry.origin}, its signature of {key.name}")
    if entry.kind == "key":
        if entry.new != str(key):
            raise BadNote("the entry names another new key than the one that signed it")
        old = VerifierKey.parse(str(entry.old))
        if entry.handover != LOST:
            check_handover(old, str(entry.handover), key)
    return entry, key


def sign_handover(old: SignerKey, new: VerifierKey) -> str:
    """Return the step in which an old key names its successor: the new key, a bar, the signature in base64."""
    return f"{new}|{_base64(old.private_key.sign(_handover_text(old.verifier, new).encode()))}"


def check_handover(old: VerifierKey, steps: str, new: VerifierKey) -> None:
    """Check that steps, joined by commas, lead from an old key to a new one; raises BadNote."""
    holder = old
    for step in steps.split(","):
        named, _, signature = step.partition("|")
        successor = VerifierKey.parse(named)
        verify_signature(holder, _handover_text(holder, successor), signature)
        holder = successor
    if holder != new:
        raise BadNote(f"the key was handed over to {holder.key_id}, not to {new.key_id}")


def _handover_text(old: VerifierKey, new: VerifierKey) -> str:
    return f"{old.name}\npulse.audit.handover.v1\n{old}\n{new}\n"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _lost(size: str | None, root: str | None) -> Extent | None:
    return None if size is None or root is None else Extent(int(size), base64.b64decode(root, validate=True))
