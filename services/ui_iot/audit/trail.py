"""The audit trail as it is read: sealed events in their one order, for pages, tails and `pulse audit`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self, TypeAlias

from sqlalchemy import column

from services.shared.db import Connection
from services.ui_iot.resources.paging import EVENT, ID, NAME, TIME, Order, Parse, read_cursor, write_cursor

Place: TypeAlias = Sequence[Any]
"""block_no, xid, timestamp, tenant_id and event_id of an event, or what stands before the first of a block."""

_BEFORE_ALL: Final = "-infinity"


def _parse_xid(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or not _is_xid(int(value), value):
        raise ValueError
    return value


def _is_xid(number: int, written: str) -> bool:
    return number < 2**64 - 1 and str(number) == written


_XID: Final[Parse] = _parse_xid
_MOMENT: Final[Parse] = lambda value: value if value == _BEFORE_ALL else TIME(value)  # noqa: E731  # as in paging

SEALED_ORDER = Order(
    "audit",
    (
        (column("block_no"), ID),
        (column("xid"), _XID),
        (column("timestamp"), _MOMENT),
        (column("tenant_id"), NAME),
        (column("event_id"), EVENT),
    ),
)


def write_place(place: Place) -> str:
    """The cursor of a place."""
    return write_cursor(SEALED_ORDER, place)


def read_place(cursor: str) -> Place:
    """The place of a cursor; raises Unprocessable."""
    return read_cursor(SEALED_ORDER, cursor)


def place_of(event: Mapping[str, Any]) -> Place:
    """Where an event is."""
    return [event[str(key.key)] for key, _ in SEALED_ORDER.keys]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of the trail. A short one may have taken too long; is_last: the trail ends with it.

    place: where to go on, end: where the sealed trail ends now, sealed_at: when its newest block was sealed.
    """

    events: list[dict[str, Any]]
    place: Place
    end: Place
    is_last: bool
    sealed_at: datetime | None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """From what audit._read_sealed gives."""
        sealed_at = found["sealed_at"]
        return cls(
            found["events"],
            found["place"],
            found["end"],
            found["is_last"],
            None if sealed_at is None else datetime.fromisoformat(sealed_at),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read: events that match, in which direction, how many at most. matching: columns, since, until."""

    matching: Mapping[str, Any]
    newest_first: bool = False
    limit: int = 500

    async def of_tenant(self, connection: Connection, place: Place | None) -> Stretch:
        """Events of the transaction's tenant from a place on, None: from the first end."""
        return Stretch.read(
            await connection.fetchval(
                "select audit.read_events($1, $2, $3, $4)", self.matching, place, self.newest_first, self.limit
            )
        )

    async def of_all(self, connection: Connection, place: Place | None, *, tenant_id: str | None) -> Stretch:
        """Events of one tenant or, with None, of all of them; for pulse_auditor."""
        return Stretch.read(
            await connection.fetchval(
                "select audit.read_all_events($1, $2, $3, $4, $5)",
                tenant_id,
                self.matching,
                place,
                self.newest_first,
                self.limit,
            )
        )
