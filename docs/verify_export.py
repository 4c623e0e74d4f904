"""Verify an export of Pulse's audit trail: without Pulse, without a database, with the public key alone.

Needs Python 3.11 and the package `cryptography`. Read this file before you run it: it is the whole program.

    python verify_export.py --key signing.key.pub export.jsonl
    python verify_export.py --key pulse.example/audit+1a2b3c4d+AbCd… --checkpoint checkpoints.log export.jsonl

A valid export proves:
- Each event is in the log that the key's owner signed, bit for bit and at the named place (RFC 6962 inclusion).
- No event occurs twice or out of order, and the file was not cut off or edited.
- No event of a block is missing if the block lies inside the requested time and no tenant was requested. For a block
  that was requested in part, you rely on the exporter for the completeness of that part.
- With --checkpoint: the signed log is the one whose checkpoint you kept, not another one made for you.
Entries (restores, failovers, declared losses, rotated keys) are signed, but only `pulse audit verify` proves that none
is missing.

Exit status: 0 as sealed, 1 not as sealed, 2 cannot tell (no key, no file, an unknown format).
"""

import argparse
import base64
import json
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Interface, ip_interface
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "pulse.audit.export.v1"


class Fault(Exception):
    """Raised if the export is not as sealed."""


class CannotTell(Exception):
    """Raised without a key or file, or for an unknown format."""


# The Merkle tree of RFC 6962 --------------------------------------------------------------------------------------


def root_from_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """Return the root that a path leads to, None if the path does not fit the place (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    root, last = leaf, size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            root = sha256(b"\x01" + sibling + root).digest()
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            root = sha256(b"\x01" + root + sibling).digest()
        index, last = index >> 1, last >> 1
    return root if last == 0 else None


# An event's bytes: Postgres' record_send of its columns --------------------------------------------------------------


class Number(str):
    """A number of JSON in its text form: 1.0 and 1.00 are two values to jsonb."""

    __slots__ = ()


def jsonb_text(value: Any) -> str:
    """Return JSON as jsonb prints it: keys by length, then by bytes; numbers in their text form."""
    match value:
        case Number():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
            return "{" + ", ".join(f"{jsonb_text(key)}: {jsonb_text(value[key])}" for key in keys) + "}"
        case list():
            return "[" + ", ".join(map(jsonb_text, value)) + "]"
        case _:
            return {None: "null", True: "true", False: "false"}[value]


def microseconds(text: str, since: datetime) -> int:
    """Return the microseconds from one time to another."""
    return (datetime.fromisoformat(text) - since) // timedelta(microseconds=1)


def inet(text: str) -> bytes:
    """Return family, bits, is_cidr, length and the address."""
    interface = ip_interface(text)
    family = 2 if isinstance(interface, IPv4Interface) else 3
    packed = interface.ip.packed
    return bytes((family, interface.network.prefixlen, 0, len(packed))) + packed


def float8(value: str) -> bytes:
    """Return a double."""
    if not isinstance(value, Number):
        raise TypeError
    return struct.pack(">d", float(value))


def text_bytes(value: str) -> bytes:
    """Return UTF-8; refuse a number in place of text."""
    if isinstance(value, Number):
        raise TypeError
    return value.encode()


POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TEXT = (25, text_bytes)
TIME = (1184, lambda value: struct.pack(">q", microseconds(value, POSTGRES_EPOCH)))
COLUMNS = {
    "tenant_id": TEXT,
    "timestamp": TIME,
    "event_id": (2950, lambda value: UUID(value).bytes),
    "recorded_at": TIME,
    "event_type": TEXT,
    "category": TEXT,
    "severity": TEXT,
    "entity_type": TEXT,
    "entity_id": TEXT,
    "entity_name": TEXT,
    "action": TEXT,
    "message": TEXT,
    "details": (3802, lambda value: b"\x01" + jsonb_text(value).encode()),
    "source_service": TEXT,
    "actor_type": TEXT,
    "actor_id": TEXT,
    "actor_name": TEXT,
    "ip_address": (869, inet),
    "trace_id": TEXT,
    "duration_ms": (701, float8),
    "xid": (5069, lambda value: struct.pack(">Q", int(value))),
}


def row_hash(event: dict[str, Any]) -> bytes:
    """Return the leaf hash of an event."""
    if event.keys() != COLUMNS.keys():
        raise Fault(f"an event has other columns than these: {', '.join(COLUMNS)}")
    record = struct.pack(">i", len(COLUMNS))
    for name, (type_oid, encode) in COLUMNS.items():
        value = event[name]
        # A null column has no bytes; the JSON value null of details has some.
        if value is None and name != "details":
            record += struct.pack(">ii", type_oid, -1)
            continue
        try:
            data = encode(value)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, struct.error):
            raise Fault(f"{name} holds a value that the trail cannot hold") from None
        record += struct.pack(">ii", type_oid, len(data)) + data
    return sha256(b"\x00pulse.audit.row.v1" + record).digest()


# A block's bytes ------------------------------------------------------------------------------------------------


def block_hash(block: dict[str, Any]) -> bytes:
    """Return the leaf hash of a block: one value a line, times in microseconds since 1970."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    values = (
        "pulse.audit.block.v1",
        block["block_no"],
        date.fromisoformat(block["segment"]).isoformat(),
        block["previous_snapshot"],
        block["snapshot"],
        block["first_position"],
        block["row_count"],
        microseconds(block["min_timestamp"], epoch),
        microseconds(block["max_timestamp"], epoch),
        base64.b64decode(block["rows_root"], validate=True).hex(),
        microseconds(block["sealed_at"], epoch),
        block["epoch"],
    )
    return sha256(b"\x00" + "\n".join(map(str, values)).encode()).digest()


# Signed notes (C2SP signed-note and tlog-checkpoint) ------------------------------------------------------------


def parse_key(text: str) -> tuple[str, bytes, Ed25519PublicKey]:
    """Return name, hash and key of `name+hash+base64`."""
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if len(key) != 33 or key[0] != 1 or sha256(name.encode() + b"\n" + key).hexdigest()[:8] != key_id:
        raise CannotTell(f"{text.strip()!r} is no public key (name+hash+key)")
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(key[1:])


def read_keys(given: Iterable[str]) -> list[tuple[str, bytes, Ed25519PublicKey]]:
    """Return the keys from files, one a line, or from the command line itself."""
    lines = [line for one in given for line in (read(one).splitlines() if Path(one).is_file() else [one])]
    return [parse_key(line) for line in lines if line.strip()]


def open_checkpoint(note: str, keys: list[tuple[str, bytes, Ed25519PublicKey]]) -> tuple[int, bytes, str]:
    """Return size, root and time of a checkpoint that one of the keys signed."""
    lines = open_note(note, keys).splitlines()
    try:
        _, size, root, *more = lines
        return int(size), base64.b64decode(root, validate=True), " ".join(more)
    except ValueError:
        raise Fault("the checkpoint is damaged") from None


def open_note(note: str, keys: list[tuple[str, bytes, Ed25519PublicKey]]) -> str:
    """Return the text of a note that one of the keys signed under its own name."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.removesuffix("\n").split("\n"):
        if not line.startswith("\N{EM DASH} "):
            raise Fault("the checkpoint is damaged")
        name, _, encoded = line.removeprefix("\N{EM DASH} ").partition(" ")
        for key_name, key_hash, key in keys:
            try:
                signature = base64.b64decode(encoded, validate=True)
                if (key_name, key_hash) != (name, signature[:4]):
                    continue
                key.verify(signature[4:], text.encode())
                if text.partition("\n")[0] == key_name:
                    return text
            except ValueError:
                raise Fault("the checkpoint is damaged") from None
            except InvalidSignature:
                raise Fault(f"the signature of {name} under the checkpoint is false") from None
    raise Fault("none of the keys signed the checkpoint")


def find_notes(text: str, name: str) -> list[str]:
    """Return the checkpoints of a log in a text, without one that was cut off."""
    signed = rf"{re.escape(name)}\n\d+\n[A-Za-z0-9+/=]{{44}}\nrows \d+\nsigned \S+\n"
    signatures = r"(?:\N{EM DASH} \S+ [A-Za-z0-9+/]{80,}=*\n)+"
    return re.findall(signed + r"\n" + signatures, text)


# Entries: signed statements about the log itself ------------------------------------------------------------------

ENTRY = re.compile(
    r"\S+\npulse\.audit\.entry\.(?:v1 (?P<kind>continued|timeline|key)|v2 (?P<loss>loss))\n"
    r"at (?P<size>\d+) rows \d+ root \S+\n"
    r"from epoch (?P<before>\d+) .+\nto epoch (?P<after>\d+) .+\n(?:lost (?P<lost>\d+) \S+\n)?"
    r"(?:old (?P<old>\S+)\nnew (?P<new>\S+)\nhandover (?P<handover>\S+)\n)?"
    r'by (?P<actor>".*")\nreason (?P<reason>".*")\nmade (?P<made>\S+)\n'
)


def parse_entry(note: str, keys: list[tuple[str, bytes, Ed25519PublicKey]]) -> dict[str, str | None]:
    """Return the members of an entry that one of the keys signed."""
    text = open_note(note, keys)
    if not text.partition("\n")[2].startswith(("pulse.audit.entry.v1 ", "pulse.audit.entry.v2 ")):
        raise CannotTell("the log has an entry of an unknown format")
    found = ENTRY.fullmatch(text)
    if found is None:
        raise Fault("an entry of the log is damaged")
    return found.groupdict()


def tell_entry(entry: dict[str, str | None]) -> str:
    """Return an entry as a sentence."""
    size, actor, reason = int(str(entry["size"])), json.loads(str(entry["actor"])), json.loads(str(entry["reason"]))
    if entry["kind"] == "key":
        old, new = (str(entry[name]).split("+")[1] for name in ("old", "new"))
        how = "was reported lost" if entry["handover"] == "lost" else "handed over to it"
        return (
            f"is signed by key {new} since {entry['made']} (checkpoint {size}) in place of {old}, which {how}: {reason}"
        )
    if entry["kind"] == "timeline":
        return f"was continued on {entry['made']} from checkpoint {size} after a failover, nothing lost: {reason}"
    lost = f"; checkpoints {size + 1} to {entry['lost']} were lost" if entry["lost"] else ""
    how = "declared to go on" if entry["loss"] else "continued"
    why = "a loss" if entry["loss"] else "restore"
    return f"was {how} on {entry['made']} from checkpoint {size} after {why}: {reason} (by {actor}{lost})"


# The export ---------------------------------------------------------------------------------------------------------


def parse(line: str) -> dict[str, Any]:
    """Return a line as a JSON object without doubled keys."""

    def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise Fault("a key occurs twice in one object")
        return members

    def refuse(word: str) -> None:
        raise Fault(f"{word} is no JSON")

    try:
        value = json.loads(
            line, parse_int=Number, parse_float=Number, parse_constant=refuse, object_pairs_hook=without_doubles
        )
    except ValueError:
        raise Fault("the line is no JSON") from None
    if not isinstance(value, dict):
        raise Fault("the line is no JSON object")
    return value


def paths(member: Any) -> list[bytes]:
    """Return the hashes of a path."""
    return [base64.b64decode(one, validate=True) for one in member]


class Export:
    """Checks the lines of an export one by one."""

    def __init__(self, keys: list[tuple[str, bytes, Ed25519PublicKey]], kept: str | None) -> None:
        self.keys = keys
        self.kept = kept
        self.digest = sha256()
        self.size = self.events = self.blocks = 0
        self.root = b""
        self.signed = ""
        self.header: dict[str, Any] | None = None
        self.block: dict[str, Any] = {}
        self.position = (-1, -1)
        self.in_block = 0
        self.whole = False
        self.entries: list[dict[str, str | None]] = []
        self.epoch: int | None = None

    def take(self, line: str) -> None:
        """Check the next line. Raises Fault or CannotTell."""
        if self.whole:
            raise Fault("something follows the trailer")
        try:
            self.take_value(parse(line), line)
        except RecursionError:
            raise CannotTell("an event is nested too deeply for this Python") from None

    def take_value(self, value: dict[str, Any], line: str) -> None:
        """Check the parsed next line."""
        kind = value.get("type")
        if (self.header is None) != (kind == "header"):
            raise Fault("an export begins with its one header")
        try:
            match kind:
                case "header":
                    self.take_header(value)
                case "block":
                    self.digest.update(line.encode())
                    self.take_block(value)
                case "event":
                    self.digest.update(line.encode())
                    self.take_event(value)
                case "trailer":
                    self.take_trailer(value)
                case _:
                    raise Fault(f"a line of type {kind!r} has no place here")
        except (KeyError, ValueError, TypeError, AttributeError):
            raise Fault(f"the {kind} lacks something or holds a value that it cannot hold") from None

    def take_header(self, header: dict[str, Any]) -> None:
        """Check the header: a given key must have signed its checkpoint; the keys in it are ignored."""
        if header["format"] != FORMAT:
            raise CannotTell(f"this program reads {FORMAT}, the export is {header['format']}")
        self.size, self.root, self.signed = open_checkpoint(header["checkpoint"], self.keys)
        self.entries = [parse_entry(note, self.keys) for note in header.get("entries", [])]
        if self.kept is not None:
            self.hold_against_kept(self.kept)
        self.header = header

    def hold_against_kept(self, text: str) -> None:
        """Check that a kept checkpoint of the same size has the same root."""
        for note in find_notes(text, self.keys[0][0]):
            if note.split("\n")[1] == str(self.size) and not self.is_lost(note):
                if open_checkpoint(note, self.keys)[:2] != (self.size, self.root):
                    raise Fault(f"the checkpoint that was kept over {self.size} blocks has another root")
                return
        raise CannotTell(f"no checkpoint over {self.size} blocks was kept; export with the same --checkpoint FILE")

    def is_lost(self, note: str) -> bool:
        """Return whether an entry declares a checkpoint's blocks lost."""
        lines = note.split("\n")
        size, signed_at = int(lines[1]), datetime.fromisoformat(lines[4].removeprefix("signed "))
        return any(
            entry["lost"] is not None
            and int(str(entry["size"])) < size <= int(entry["lost"])
            and signed_at < datetime.fromisoformat(str(entry["made"]))
            for entry in self.entries
        )

    def check_epoch(self, number: int, snapshot: str) -> None:
        """Check that an entry records a move between blocks of two servers."""
        epoch = int(snapshot.split(":")[1]) >> 48
        before, self.epoch = self.epoch, epoch
        if before is not None and epoch > before:
            named = {int(str(entry["after"])) for entry in self.entries if int(str(entry["size"])) < number}
            if epoch not in named:
                raise Fault(f"block {number} was sealed on another server than those before it, and no entry says so")

    def take_block(self, block: dict[str, Any]) -> None:
        """Check that the block is in the tree, after the previous one."""
        self.close_block()
        number = int(block["block_no"])
        if number <= self.position[0]:
            raise Fault(f"block {number} occurs twice or out of order")
        if root_from_path(block_hash(block), number, self.size, paths(block["path"])) != self.root:
            raise Fault(f"block {number} is not in the signed tree")
        self.check_epoch(number, block["snapshot"])
        self.block, self.position, self.in_block = block, (number, -1), 0
        self.blocks += 1

    def close_block(self) -> None:
        """Check that a block requested in full is complete."""
        if not self.block or self.header is None:
            return
        asked, rows = self.header["filter"], int(self.block["row_count"])
        if self.in_block == 0:
            raise Fault(f"block {self.block['block_no']} has no events")
        times = (asked["from"], self.block["min_timestamp"], self.block["max_timestamp"], asked["to"])
        start, first, last, end = map(datetime.fromisoformat, times)
        inside = start <= first and last < end
        if inside and "tenant" not in asked and "event_id" not in asked and self.in_block != rows:
            raise Fault(f"block {self.block['block_no']} has {rows} events and {self.in_block} are there")

    def take_event(self, line: dict[str, Any]) -> None:
        """Check that the event is in its block, after the previous one, and was requested."""
        assert self.header is not None
        number, index, event = int(line["block_no"]), int(line["index"]), line["event"]
        if number != self.position[0]:
            raise Fault(f"an event of block {number} is among those of block {self.position[0]}")
        if index <= self.position[1]:
            raise Fault(f"event {index} of block {number} occurs twice or out of order")
        root = base64.b64decode(self.block["rows_root"])
        if root_from_path(row_hash(event), index, int(self.block["row_count"]), paths(line["path"])) != root:
            raise Fault(f"event {event['event_id']} is not the one that was sealed as event {index} of block {number}")
        asked = self.header["filter"]
        happened_at = datetime.fromisoformat(event["timestamp"])
        if not datetime.fromisoformat(asked["from"]) <= happened_at < datetime.fromisoformat(asked["to"]):
            raise Fault(f"event {event['event_id']} is outside the requested time")
        if asked.get("tenant", event["tenant_id"]) != event["tenant_id"]:
            raise Fault(f"event {event['event_id']} is of another tenant than requested")
        self.position = (number, index)
        self.in_block += 1
        self.events += 1

    def take_trailer(self, trailer: dict[str, Any]) -> None:
        """Check the counts and the digest of the lines before the trailer."""
        assert self.header is not None
        self.close_block()
        said = (int(trailer["events"]), int(trailer["blocks"]), int(self.header["events"]), trailer["sha256"])
        if said != (self.events, self.blocks, self.events, self.digest.hexdigest()):
            raise Fault(
                f"the export has {self.events} events in {self.blocks} blocks, its trailer counts {said[0]} in "
                f"{said[1]} and its header {said[2]}: lines were removed, added or edited"
            )
        self.whole = True

    def close(self) -> None:
        """Check that the trailer was there."""
        if not self.whole:
            raise Fault("the export was cut off: it has no trailer")


def read(name: str) -> str:
    """Return a file's text."""
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise CannotTell(f"{name}: {error}") from None


def read_lines(name: str) -> Iterator[str]:
    """Yield the lines of a file or of standard input; only a line feed ends one."""
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as source:
            for line in source:
                yield line.decode()
    except OSError as error:
        raise CannotTell(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Fault("the line is not UTF-8") from None


def main() -> int:
    """Verify an export and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="the export, - for standard input")
    parser.add_argument("--key", action="append", required=True, help="public key or a file with keys; may be repeated")
    parser.add_argument("--checkpoint", help="a file of checkpoints that was stored elsewhere")
    options = parser.parse_args()
    line_no = 0
    try:
        kept = None if options.checkpoint is None else read(options.checkpoint)
        export = Export(read_keys(options.key), kept)
        for line in read_lines(options.export):
            line_no += 1
            export.take(line)
        export.close()
    except Fault as fault:
        print(f"NOT AS SEALED, line {line_no}: {fault}.")
        return 1
    except CannotTell as reason:
        print(f"cannot tell: {reason}", file=sys.stderr)
        return 2
    print(f"As sealed: {export.events} events in {export.blocks} blocks.")
    print(f"Proven against the checkpoint over {export.size} blocks, {export.signed}.")
    for entry in export.entries:
        print(f"The log {tell_entry(entry)}.")
    if kept is None:
        print("It was not held against a checkpoint that you kept (--checkpoint).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
