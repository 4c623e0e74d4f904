"""Views of schema api: their columns, derived from the model of the answer, and selects over them."""

from datetime import datetime
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from sqlalchemy import BigInteger, Boolean, Column, DateTime, Select, TableClause, Text, table
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.types import NullType, TypeEngine

from services.shared.db import Connection

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves its dialects untyped
# Only columns that filters compare need a type. A row is decoded by the driver.
_TYPES: dict[Any, TypeEngine[Any]] = {
    int: BigInteger(),
    str: Text(),
    bool: Boolean(),
    datetime: DateTime(timezone=True),
    list[str]: ARRAY(Text),
}


def api_view(name: str, model: type[BaseModel], *unshown: str) -> TableClause:
    """Return a view of schema api with a column for each member of the model.

    unshown: further columns, of type bigint, that selects use and answers leave out.
    """
    columns = {member: _type_of(field.annotation) for member, field in model.model_fields.items()}
    columns |= dict.fromkeys(unshown, BigInteger())
    return table(name, *(Column(column, kind) for column, kind in columns.items()), schema="api")


async def fetch(connection: Connection, statement: Select[Any]) -> list[dict[str, Any]]:
    """Return the rows of a select."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    return [dict(row) for row in await connection.fetch(str(compiled), *values)]


def _type_of(annotation: Any) -> TypeEngine[Any]:
    if get_origin(annotation) is UnionType:
        annotation = next(kind for kind in get_args(annotation) if kind is not NoneType)
    return _TYPES.get(annotation, NullType())
