"""Schemas of the SQL layer that `drop schema … cascade` or an incomplete restore removed."""

import re
from typing import Any

from psycopg import sql
from psycopg.rows import tuple_row

from migrations.layer_catalog import SCHEMAS, LayerError, Session

_NAMED = re.compile(r"\b(?:view|routine|table|schema) (\w+)")
# Schemas with views and routines only, so that no data is lost with them, and their comments.
TABLELESS = {
    "core": "Small functions that every other schema uses: time, ids, the transaction's actor, errors.",
    "dispatcher": "Routes: from alert events to notification jobs and recorded suppressions.",
    "trace": "Spans of a trace, found in the rows of all tables, and rows whose cause is missing.",
    "metrics": "Views only: each view is served by the exporter as one metric named pulse_<view>.",
    "api": "Views that the HTTP API reads; each shows the rows of the tenant in pulse.tenant_id and no others.",
}


def restore_schemas(session: Session, recorded: dict[str, Any] | None) -> list[str]:
    """Create the schemas that a recorded layer had and the catalog lacks, and return their names.

    The session must act as the owner. Raises LayerError if a lost schema held tables.
    """
    parts = recorded or {}
    text = "\n".join([*parts.get("definitions", ()), *parts.get("tables", ())])
    named = set(_NAMED.findall(text)).intersection(SCHEMAS)
    query = "select name from unnest(%s::text[]) as name where to_regnamespace(name) is null order by 1"
    rows = session.cursor(row_factory=tuple_row).execute(query, [sorted(named)]).fetchall()
    lost = [name for (name,) in rows]
    if tables := [name for name in lost if name not in TABLELESS]:
        raise LayerError(
            f"schema {', '.join(tables)} is gone with its tables, which no migration makes: restore a backup"
        )
    for name in lost:
        session.execute(sql.SQL("create schema {}").format(sql.Identifier(name)))
        comment = sql.SQL("comment on schema {} is {}")
        session.execute(comment.format(sql.Identifier(name), sql.Literal(TABLELESS[name])))
    return lost
