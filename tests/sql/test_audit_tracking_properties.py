"""For any rows and any changes, the trail records everything except redacted values."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

Session: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]

SECRET = "hush"
# Every value of a redacted column contains this mark; PostgreSQL's text has no NUL.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
SECRETS = st.one_of(st.none(), WORDS.map(lambda word: f"{word}{SECRET}{word}"))
ROWS = st.fixed_dictionaries(
    {
        "name": st.one_of(st.none(), WORDS),
        "value": st.one_of(st.none(), st.floats(width=64)),
        "tags": st.one_of(st.none(), st.lists(st.one_of(st.none(), WORDS), max_size=3)),
        "doc": st.one_of(st.none(), st.dictionaries(WORDS, st.one_of(st.none(), st.integers(0, 9), WORDS), max_size=2)),
        "secret": SECRETS,
        "secrets": st.one_of(st.none(), st.lists(SECRETS, max_size=2)),
        "vault": st.one_of(st.none(), st.dictionaries(SECRETS.filter(bool), SECRETS, max_size=2)),
    }
)
KEYS = st.integers(1, 4)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), KEYS, ROWS),
        st.tuples(st.just("update"), st.lists(KEYS, max_size=4, unique=True), ROWS),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("rename"), KEYS, KEYS),
    ),
    min_size=1,
    max_size=6,
)
COLUMNS = ("name", "value", "tags", "doc", "secret", "secrets", "vault")


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """A session on a tracked table; the test rolls back its work after each example."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("set pulse.actor_id = 'tests'")
        connection.execute(
            "create table gauge (id int primary key, name text, value float8, tags text[], doc jsonb, secret text,"
            " secrets text[], vault jsonb); alter table gauge owner to pulse_owner;"
            "select audit.track('gauge', redact => array['secret', 'secrets', 'vault'])"
        )
        yield connection


def _do(session: Session, act: tuple[str, Any, Any]) -> None:
    verb, key, row = act
    if row is not None and verb != "rename":
        row = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in row.items()}
    names = ", ".join(COLUMNS)
    values = ", ".join(f"%({name})s" for name in COLUMNS)
    match verb:
        case "upsert":
            changes = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
            statement = (
                f"insert into gauge (id, {names}) values (%(id)s, {values}) on conflict (id) do update set {changes}"
            )
            session.execute(statement.encode(), {**row, "id": key})
        case "update":
            session.execute(
                f"update gauge set ({names}) = ({values}) where id = any(%(ids)s)".encode(), {**row, "ids": key}
            )
        case "delete":
            session.execute("delete from gauge where id = %s", [key])
        case "rename":
            session.execute(
                "update gauge set id = %s where id = %s and not exists (select from gauge where id = %s)",
                [row, key, row],
            )


def _rows(session: Session) -> dict[str, Row]:
    """Return the table as the trail records it: keys as text, values as JSON, redacted values as a mark."""
    query = (
        "select id::text, to_jsonb(g) || jsonb_build_object("
        "'secret', case when secret is not null then '[redacted]' end,"
        "'secrets', case when secrets is not null then '[redacted]' end,"
        "'vault', case when vault is not null then '[redacted]' end) from gauge g"
    )
    return dict(session.execute(query).fetchall())


def _replayed(session: Session) -> dict[str, Row]:
    """Return the same table, rebuilt from the events alone."""
    rows: dict[str, Row] = {}
    query = (
        "select action, entity_id, details from audit_log where event_type like 'config.row%' order by timestamp, ctid"
    )
    for action, key, details in session.execute(query).fetchall():
        match action:
            case "row_created":
                assert key not in rows
                rows[key] = details["new"]
            case "row_updated":
                for name, (old, new) in details["changes"].items():
                    assert rows[key][name] == old
                    rows[key][name] = new
            case "row_deleted":
                assert rows.pop(key) == details["old"]
    return rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_the_trail_records_everything_but_the_secrets(session: Session, acts: list[tuple[str, Any, Any]]) -> None:
    """Replaying the events gives the table, each old value equals the one before, and no column has a secret."""
    with session.transaction(force_rollback=True):
        for act in acts:
            _do(session, act)
        assert _replayed(session) == _rows(session)
        leaks = session.execute("select count(*) from audit_log l where l::text like %s", [f"%{SECRET}%"]).fetchone()
        assert leaks == (0,)
