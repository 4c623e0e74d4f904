"""Pages of lists. The cursor holds the sort key of the last row, so every page costs the same."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, tuple_

from services.shared.db import Connection
from services.ui_iot.http.problems import Unprocessable
from services.ui_iot.resources.fields import DIGITS, GREATEST_ID
from services.ui_iot.resources.views import fetch

LONGEST_CURSOR = 512


def _parse_id(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= GREATEST_ID:
        raise ValueError
    return value


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value


def _parse_time(value: Any) -> datetime:
    time = datetime.fromisoformat(_parse_name(value))
    if time.tzinfo is None:
        raise ValueError
    return time


def _same(expected: str) -> "Parse":
    def parse(value: Any) -> str:
        if value != expected:
            raise ValueError
        return expected

    return parse


Parse = Callable[[Any], Any]
ID: Final[Parse] = _parse_id
NAME: Final[Parse] = _parse_name
TIME: Final[Parse] = _parse_time
EVENT: Final[Parse] = lambda value: UUID(_parse_name(value))  # noqa: E731  # a constant like the others


@dataclass(frozen=True, slots=True)
class SortOrder:
    """The order of a list. resource: name in cursors, so that a cursor works on its own list only."""

    resource: str
    keys: tuple[tuple[ColumnElement[Any], Parse], ...]
    descending: bool = False


class PageQuery(BaseModel):
    """The query of a list, to which each list adds its filters. Unknown names are refused, to catch misspellings."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    limit: Annotated[int, Field(ge=1, le=200, description="Maximum number of items of the page."), DIGITS] = 50
    cursor: Annotated[
        str | None, Field(max_length=LONGEST_CURSOR, description="`next_cursor` of the previous page.")
    ] = None


def write_cursor(order: SortOrder, values: Sequence[Any]) -> str:
    """Return the cursor of a row's sort key."""
    # default: the driver's UUID is not the standard library's.
    return base64.urlsafe_b64encode(orjson.dumps([order.resource, *values], default=str)).rstrip(b"=").decode()


def read_cursor(order: SortOrder, cursor: str) -> tuple[Any, ...]:
    """Return the sort key in a cursor. Raises Unprocessable if the list did not give it out."""
    parsers = (_same(order.resource), *(parse for _, parse in order.keys))
    try:
        values = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        return tuple(parse(value) for parse, value in zip(parsers, values, strict=True))[1:]
    except (ValueError, TypeError):
        raise Unprocessable("cursor is not one that this list gave out.") from None


async def fetch_page(
    connection: Connection, statement: Select[Any], *, order: SortOrder, page: PageQuery
) -> dict[str, Any]:
    """Return a page of the statement's rows: {"items": […], "next_cursor": text or null}."""
    columns = [column for column, _ in order.keys]
    if page.cursor is not None:
        place = read_cursor(order, page.cursor)
        ahead = tuple_(*columns) < place if order.descending else tuple_(*columns) > place
        statement = statement.where(ahead)
    ordered = [column.desc() if order.descending else column.asc() for column in columns]
    # One more row shows whether there is another page.
    rows = await fetch(connection, statement.order_by(*ordered).limit(page.limit + 1))
    items = rows[: page.limit]
    more = len(rows) > page.limit
    names = [str(column.key) for column in columns]
    return {
        "items": items,
        "next_cursor": write_cursor(order, [items[-1][name] for name in names]) if more else None,
    }
