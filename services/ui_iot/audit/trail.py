"""Reads of the audit trail: sealed events in their single order, for pages, tails and `pulse audit`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress
from sqlalchemy import column

from services.shared.db import Connection
from services.ui_iot.resources.fields import Moment, TraceId
from services.ui_iot.resources.paging import EVENT, ID, NAME, TIME, Parse, SortOrder, read_cursor, write_cursor

Word = Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$")]
Place: TypeAlias = Sequence[Any]
"""block_no, xid, timestamp, tenant_id and event_id of an event, or a place before the first event of a block."""

_BEFORE_ALL: Final = "-infinity"


def _parse_xid(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or not _is_xid(int(value), value):
        raise ValueError
    return value


def _is_xid(number: int, written: str) -> bool:
    return number < 2**64 - 1 and str(number) == written


_XID: Final[Parse] = _parse_xid
_MOMENT: Final[Parse] = lambda value: value if value == _BEFORE_ALL else TIME(value)  # noqa: E731  # as in paging

SEALED_ORDER = SortOrder(
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
    """Return the cursor of a place."""
    return write_cursor(SEALED_ORDER, place)


def read_place(cursor: str) -> Place:
    """Return the place of a cursor. Raises Unprocessable."""
    return read_cursor(SEALED_ORDER, cursor)


def place_of(event: Mapping[str, Any]) -> Place:
    """Return the place of an event."""
    return [event[str(key.key)] for key, _ in SEALED_ORDER.keys]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive events of the trail. It is short if reading more would have taken too long.

    place: place to go on from. end: present end of the sealed trail. is_last: the trail ends with these events.
    sealed_at: time at which the newest block was sealed.
    """

    events: list[dict[str, Any]]
    place: Place
    end: Place
    is_last: bool
    sealed_at: datetime | None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """Return the result of audit._read_sealed."""
        sealed_at = found["sealed_at"]
        return cls(
            found["events"],
            found["place"],
            found["end"],
            found["is_last"],
            None if sealed_at is None else datetime.fromisoformat(sealed_at),
        )


class AuditFilter(BaseModel):
    """Filters of audit events."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    event_type: Word | None = None
    """Only events of this type, such as `config.rule_updated`."""
    category: Literal["auth", "device", "alert", "rule", "delivery", "config", "audit", "system"] | None = None
    """Only events in this category, the first word of the type."""
    severity: Literal["debug", "info", "warning", "error", "critical"] | None = None
    """Only events of this severity."""
    entity_type: Word | None = None
    """Only events about this kind of entity, such as `rule`."""
    entity_id: Word | None = None
    """Only events about the entity with this id."""
    actor_type: Literal["user", "device", "service", "anonymous"] | None = None
    """Only events of this kind of actor."""
    actor_id: Word | None = None
    """Only events of this actor."""
    ip_address: IPvAnyAddress | None = None
    """Only events of requests from this address."""
    trace_id: TraceId | None = None
    """Only events caused by the request with this trace id."""
    since: Moment | None = None
    """Only events at this time or later."""
    until: Moment | None = None
    """Only events before this time."""

    def matching(self) -> dict[str, Any]:
        """Return the filters that are set, as JSON values."""
        return self.model_dump(mode="json", include=set(AuditFilter.model_fields), exclude_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailReading:
    """A read of the trail. matching: values of columns, and the times since and until."""

    matching: Mapping[str, Any]
    newest_first: bool = False
    limit: int = 500

    async def of_tenant(self, connection: Connection, place: Place | None) -> Stretch:
        """Return events of the transaction's tenant from a place on. None: from the first end."""
        return Stretch.read(
            await connection.fetchval(
                "select audit.read_events($1, $2, $3, $4)", self.matching, place, self.newest_first, self.limit
            )
        )

    async def of_all(self, connection: Connection, place: Place | None, *, tenant_id: str | None) -> Stretch:
        """Return events of one tenant, or of all tenants with None. For pulse_auditor."""
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
