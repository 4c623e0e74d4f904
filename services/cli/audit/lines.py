"""Evidence as JSON lines, which docs/verify_export.py checks without a database.

header ─▶ block ─▶ event, event … ─▶ block ─▶ event … ─▶ trailer
"""

import base64
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import orjson

from services.cli.audit.evidence import Head, ProvenBlock, ProvenEvent, Question, as_text
from services.shared.sealed_log.note import VerifierKey

FORMAT = "pulse.audit.export.v1"


class Lines:
    """Lines of one export. The trailer covers all lines before it."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._events = 0
        self._blocks = 0

    def header(
        self, question: Question, head: Head, keys: Iterable[VerifierKey], entries: Sequence[str], events: int
    ) -> bytes:
        """Return the header: the filter, and the checkpoint and keys that prove the lines after it."""
        # A log without entries has no such member, so that its exports keep their format.
        more = {"entries": entries} if entries else {}
        return _line(
            type="header",
            format=FORMAT,
            log=head.checkpoint.origin,
            filter=question.as_filter(),
            events=events,
            checkpoint=head.note,
            public_keys=[str(key) for key in keys],
            **more,
        )

    def block(self, proven: ProvenBlock) -> bytes:
        """Return a block with its path to the root."""
        block = proven.block
        self._blocks += 1
        return self._count(
            _line(
                type="block",
                block_no=block.block_no,
                segment=block.segment.isoformat(),
                previous_snapshot=block.previous_snapshot,
                snapshot=block.snapshot,
                first_position=block.first_position,
                row_count=block.row_count,
                min_timestamp=as_text(block.min_timestamp),
                max_timestamp=as_text(block.max_timestamp),
                rows_root=_text(block.rows_root),
                sealed_at=as_text(block.sealed_at),
                epoch=block.epoch,
                path=[_text(one) for one in proven.path],
            )
        )

    def event(self, proven: ProvenEvent) -> bytes:
        """Return an event with its path to the root of its block."""
        self._events += 1
        return self._count(
            _line(
                type="event",
                block_no=proven.block.block.block_no,
                index=proven.place,
                path=[_text(one) for one in proven.block.rows.path(proven.place)],
                event=orjson.Fragment(proven.event),
            )
        )

    def trailer(self) -> bytes:
        """Return the last line, which a truncated file lacks. sha256: of the lines between header and trailer."""
        return _line(type="trailer", blocks=self._blocks, events=self._events, sha256=self._digest.hexdigest())

    def _count(self, line: bytes) -> bytes:
        self._digest.update(line)
        return line


def _line(**members: Any) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
