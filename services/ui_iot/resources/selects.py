"""Selects over the api views. Here and not with the pools: workers, which select nothing, need not load SQLAlchemy."""

from typing import Any

from sqlalchemy import Select
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect

from services.shared.db import Connection

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves its dialects untyped


async def fetch(connection: Connection, statement: Select[Any]) -> list[dict[str, Any]]:
    """The rows of a SQLAlchemy Core select."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    return [dict(row) for row in await connection.fetch(str(compiled), *values)]
