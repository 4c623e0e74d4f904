"""Kinds of changeable resources: view, key column and model of each."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnClause, Select, TableClause, select
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect

from services.shared.db import Connection
from services.ui_iot.resources.entity_tags import Versioned, tag_of

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves its dialects untyped


async def fetch(connection: Connection, statement: Select[Any]) -> list[dict[str, Any]]:
    """The rows of a SQLAlchemy Core select."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    return [dict(row) for row in await connection.fetch(str(compiled), *values)]


@dataclass(frozen=True, slots=True)
class Resource:
    """kind: its name in messages and in ingest.lock_resource. view, key: the api view and its column with the id."""

    kind: str
    view: TableClause
    key: ColumnClause[Any]
    model: type[Versioned]

    def select(self, identity: int | str) -> Select[Any]:
        """Return the select of one resource."""
        return select(self.view).where(self.key == identity)

    async def lock(self, connection: Connection, identity: int | str) -> str | None:
        """Return the resource's entity tag, None when there is none; it changes for no other transaction meanwhile."""
        await connection.execute("select ingest.lock_resource($1, $2)", self.kind, str(identity))
        # A statement of its own, for its snapshot must be younger than the lock.
        rows = await fetch(connection, self.select(identity))
        return tag_of(self.model, self.model.model_validate(rows[0]).model_dump(mode="json")) if rows else None
