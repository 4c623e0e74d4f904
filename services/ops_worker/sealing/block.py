"""A block of audit rows as the tree sees it: its header, line by line, and the header's leaf hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

from services.ops_worker.sealing.tree import leaf_hash

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (time - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A row of audit.blocks; snapshots in Postgres' text form."""

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

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the database."""
        return cls(**{name: row[name] for name in cls.__slots__})

    def header(self) -> bytes:
        """What its leaf in the tree says: one value a line, times in microseconds since 1970."""
        values = (
            "pulse.audit.block.v1",
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
        )
        return "\n".join(map(str, values)).encode()

    def leaf(self) -> bytes:
        """Its leaf hash."""
        return leaf_hash(self.header())
