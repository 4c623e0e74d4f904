"""A block of audit rows in the tree: its header, line by line, and the header's leaf hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

from services.shared.sealed_log.entry import TAG
from services.shared.sealed_log.tree import EMPTY_ROOT, leaf_hash

ENTRY_SEGMENT = date.min
"""The month of blocks without rows; no event is from that month."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    """Return the exact number of microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


class Broken(Exception):
    """Raised if the log contradicts itself or a signature. block_no: the faulty block, if there is one."""

    def __init__(self, message: str, *, block_no: int | None = None) -> None:
        super().__init__(message)
        self.block_no = block_no


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A row of audit.blocks, with snapshots in Postgres' text form. entry: the signed note of a block without rows."""

    block_no: int
    segment: date
    previous_snapshot: str
    snapshot: str
    first_position: int
    row_count: int
    min_timestamp: datetime
    max_timestamp: datetime
    rows_root: bytes
    sealed_at: datetime
    epoch: int
    entry: str | None = None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Return the block in a row of the database."""
        return cls(**{name: row[name] for name in cls.__slots__ if name != "entry"}, entry=row.get("entry"))

    def header(self) -> bytes:
        """Return the leaf's content: one value a line, times in microseconds since 1970."""
        values = (
            "pulse.audit.block.v1" if self.entry is None else TAG,
            self.block_no,
            self.segment.isoformat(),
            self.previous_snapshot,
            self.snapshot,
            self.first_position,
            self.row_count,
            microseconds(self.min_timestamp),
            microseconds(self.max_timestamp),
            self.rows_root.hex(),
            microseconds(self.sealed_at),
            self.epoch,
            *([] if self.entry is None else [self.entry]),
        )
        return "\n".join(map(str, values)).encode()

    def leaf(self) -> bytes:
        """Return the leaf hash."""
        return leaf_hash(self.header())

    @classmethod
    def of_entry(cls, number: int, *, note: str, snapshot: str, position: int, made_at: datetime, lease: int) -> Self:
        """Return the block of an entry; it has no rows, because both snapshots are the same."""
        return cls(
            block_no=number,
            segment=ENTRY_SEGMENT,
            previous_snapshot=snapshot,
            snapshot=snapshot,
            first_position=position,
            row_count=0,
            min_timestamp=made_at,
            max_timestamp=made_at,
            rows_root=EMPTY_ROOT,
            sealed_at=made_at,
            epoch=lease,
            entry=note,
        )
