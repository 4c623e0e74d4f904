"""The registry of event types matches the events that the code writes."""

import re
from pathlib import Path

import asyncpg

from services.shared.audit import TELEMETRY

ROOT = Path(__file__).parents[2]

CATEGORIES = "auth|device|rule|alert|delivery|config|audit|system"
_LITERAL = re.compile(rf"""['"]((?:{CATEGORIES})\.[a-z_]+)['"]""")
# Tables and functions of schema audit that SQL names in quotes.
_NO_EVENT = {"audit.blocks", "audit.commands"}
_PUT_TOGETHER = re.compile(rf"""p_event_type => '((?:{CATEGORIES})\.)' \|\|""")


def sources() -> list[str]:
    """Return the text of every file that may write an event."""
    files = [
        *(ROOT / "services").rglob("*.py"),
        *(ROOT / "exporter").rglob("*.py"),
        *(path for path in (ROOT / "sql").rglob("*.sql") if path.name != "event_types.sql"),
    ]
    return [path.read_text() for path in files]


async def registry(conn: asyncpg.Connection) -> dict[str, asyncpg.Record]:
    """Rows of audit.event_types by type."""
    return {row["event_type"]: row for row in await conn.fetch("select * from audit.event_types")}


async def changes(conn: asyncpg.Connection) -> set[str]:
    """Return the types that the triggers of our tracked tables compose; for an alert only its silence."""
    rows = await conn.fetch("select entity_type, only_columns is null as whole from audit.tracked_tables")
    found = {f"{row['entity_type']}_{act}" for row in rows if row["whole"] for act in ("created", "updated", "deleted")}
    found |= {"alert_silenced", "row_created", "row_updated", "row_deleted"}
    return {f"config.{name}" for name in found}


async def test_every_type_in_the_code_is_registered(conn: asyncpg.Connection) -> None:
    """COPY does not check the registry, so a type from Python is checked here."""
    used = {name for text in sources() for name in _LITERAL.findall(text)} - _NO_EVENT
    assert (used | await changes(conn)) - set(await registry(conn)) == set()


async def test_no_registered_type_is_dead(conn: asyncpg.Connection) -> None:
    """A type that no code writes is removed.

    A type put together from an alert event's kind or a dispatcher's decision is known by its prefix only.
    """
    used = {name for text in sources() for name in _LITERAL.findall(text)} - _NO_EVENT | await changes(conn)
    prefixes = tuple(prefix for text in sources() for prefix in _PUT_TOGETHER.findall(text))
    unused = {name for name in await registry(conn) if name not in used and not name.startswith(prefixes)}
    assert unused == set()


async def test_python_and_the_registry_agree_on_what_may_be_lost(conn: asyncpg.Connection) -> None:
    """Python decides without the database which events are durable before the answer."""
    rows = await registry(conn)
    assert {name for name, row in rows.items() if row["class"] == "may"} == TELEMETRY
    assert {row["class"] for row in rows.values()} == {"must", "may"}


async def test_every_entry_is_well_formed(conn: asyncpg.Connection) -> None:
    """category.action in lower case, a severity audit_log takes, a sentence; listed once."""
    rows = await conn.fetch("select * from audit.event_types")
    assert len({row["event_type"] for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch(rf"({CATEGORIES})\.[a-z_]+", row["event_type"])
        assert row["severity"] in {"debug", "info", "warning", "error", "critical"}
        assert re.fullmatch(r"[A-Z].*\.", row["description"])
