"""`pulse audit verify` names a superuser's changes to the layer itself, with queries from its own code."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
from psycopg.types.json import Jsonb

from migrations.layer_check import VARIABLE, Findings, check_layer
from migrations.layer_definitions import record_definitions
from migrations.sql_layer import read_layer
from migrations.tampering import _STRING_BODY
from services.shared import db
from tests.support.audit_program import Pulse
from tests.support.migrator import ROOT
from tests.support.sealed_log import SealedLog, make_sealer

READER = """
create or replace function audit.read_leaves(p_previous text, p_snapshot text, p_first_segment date default null,
  p_last_segment date default null) returns table (xid bigint, segment date, leaves bytea)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$ begin return; end $$
"""
# A change and the faults that it causes.
TAMPERING = {
    READER: ["altered routine audit.read_leaves("],
    "alter function audit.write security invoker": ["altered routine audit.write("],
    "create function audit._helper() returns int language sql return 1": ["added routine audit._helper()"],
    "create view api.everything as select * from audit_log": ["added view api.everything"],
    "create policy hidden on audit_log using (tenant_id <> 'acme'); alter table audit_log enable row level security": [
        "added policy hidden on public.audit_log",
        "row security of public.audit_log",
    ],
    "alter table audit_log force row level security": ["row security of public.audit_log"],
    "alter table audit_log disable trigger all": [
        "altered trigger audit_log_append_only on public.audit_log",
        "altered trigger audit_log_no_truncate on public.audit_log",
    ],
    "alter table audit_log_default disable trigger audit_log_append_only": ["partitions of public.audit_log"],
    "alter table devices disable trigger user": ["disabled or missing triggers of tracked table public.devices"],
    "alter role pulse_app set session_replication_role = replica": [
        "setting session_replication_role of role pulse_app"
    ],
    "alter role pulse_ops in database {database} set session_replication_role = replica": [
        "setting session_replication_role of role pulse_ops in database {database}"
    ],
    "alter database {database} set session_replication_role = replica": [
        "setting session_replication_role of database {database}"
    ],
    "alter role pulse_app in database {database} set search_path = mallory, public": [
        "setting search_path of role pulse_app in database {database}"
    ],
    "alter database {database} set pulse.actor_id = 'nobody'": ["setting pulse.actor_id of database {database}"],
    "create function public.spy() returns event_trigger language plpgsql as 'begin end';"
    "create event trigger spy on ddl_command_end execute function public.spy()": [
        "event trigger spy of postgres, which calls"
    ],
    "create rule quiet as on delete to audit.blocks do instead nothing": ["rule quiet on audit.blocks"],
    "create function public.eat() returns trigger language plpgsql as 'begin return null; end';"
    "create trigger eat before insert on audit_log for each row execute function public.eat()": [
        "trigger eat on public.audit_log, which calls public.eat()"
    ],
    "alter table audit.checkpoints owner to pulse_app": ["owner of table audit.checkpoints: pulse_app"],
    "alter view audit.recent owner to pulse_ops": ["owner of view audit.recent"],
    "alter function audit.write owner to postgres": ["owner of routine audit.write"],
    "grant update, delete on audit_log to pulse_app": ["altered grants on table public.audit_log"],
    "grant execute on function audit.append_blocks to pulse_app": ["altered grants on routine audit.append_blocks("],
    "grant execute on function audit.cut_log to public": ["altered grants on routine audit.cut_log("],
    "grant update (message) on audit_log to mallory": ["grant of update on column message of table public.audit_log"],
    "grant delete on audit_log_default to mallory": ["grant of delete on table public.audit_log_default to mallory"],
    "alter table audit_log_default owner to mallory": ["owner of table public.audit_log_default: mallory"],
    "grant create on schema audit to mallory": ["grant of create on schema audit to mallory"],
    "alter role all set session_replication_role = replica": ["setting session_replication_role of all roles"],
    "alter role pulse_operator set search_path = mallory, public": ["setting search_path of role pulse_operator"],
    "create function pg_catalog.sha256(text) returns bytea language sql return sha256(''::bytea)": [
        "routine sha256(text) in pg_catalog"
    ],
    "grant insert on audit_log to mallory": ["grant of insert on table public.audit_log to mallory"],
    "grant execute on function audit.write to mallory": ["grant of execute on routine audit.write to mallory"],
    "create role intruder login; grant pulse_owner to intruder": ["membership of intruder in pulse_owner"],
    "grant pulse_auditor to pulse_app": ["membership of pulse_app in pulse_auditor"],
    "grant pg_write_all_data to pulse_exporter": ["membership of pulse_exporter in pg_write_all_data"],
    "alter role pulse_app bypassrls": ["attribute bypassrls of role pulse_app"],
    "alter table audit.blocks drop constraint blocks_row_count_check": ["missing constraint blocks_row_count_check"],
    "update sql_layer set body = body || '-- nothing'": ["altered record of the SQL layer in public.sql_layer"],
    "truncate sql_layer": ["no SQL layer is recorded in public.sql_layer"],
}


@pytest.mark.slow
def test_each_tampering_is_named(database_url: str) -> None:
    """By the login that verifies, in a database with only this one change."""
    database = urlsplit(database_url).path.strip("/")
    with psycopg.connect(database_url) as session:
        session.execute("create role mallory")

        def found() -> list[str]:
            with session.transaction(force_rollback=True):
                session.execute("set local role pulse_auditor")
                return check_layer(session).faults

        assert found() == []
        missed = []
        for statement, names in TAMPERING.items():
            with session.transaction(force_rollback=True):
                session.execute(statement.format(database=database).encode())
                faults = found()
            missed += [(statement, name, faults) for name in names if not _is_among(name, faults, database)]
        assert missed == []
        assert found() == []
        session.rollback()


def test_an_event_trigger_of_a_provider_is_a_warning(database_url: str) -> None:
    """On a server whose superuser is neither Pulse's nor the database's owner; it calls no function of Pulse."""
    database = urlsplit(database_url).path.strip("/")
    provider = (
        "create role landlord superuser; create function public.watch() returns event_trigger language plpgsql"
        " as 'begin end'; create event trigger watch on ddl_command_end execute function public.watch();"
        " alter event trigger watch owner to landlord;"
        f" alter database {database} owner to pulse_owner"
    )
    with psycopg.connect(database_url) as session:

        def found() -> Findings:
            with session.transaction(force_rollback=True):
                session.execute("set local role pulse_auditor")
                return check_layer(session)

        session.execute(provider.encode())
        findings = found()
        assert findings.faults == []
        assert [note for note in findings.notes if "event trigger" in note] == [
            "event trigger watch of landlord, which calls watch, is not Pulse's"
        ]
        for change in (
            f"alter database {database} owner to landlord",
            "alter function public.watch() owner to pulse_owner",
            "alter function public.watch() set schema audit",
        ):
            with session.transaction(force_rollback=True):
                session.execute(change.encode())
                assert any(name.startswith("event trigger watch of landlord, which calls") for name in found().faults)
        session.rollback()


def _is_among(name: str, faults: list[str], database: str) -> bool:
    return any(name.format(database=database) in fault for fault in faults)


def test_a_record_that_agrees_with_the_tampering_is_found_by_the_checkout(database_url: str) -> None:
    """The superuser replaces a function and its record, but not the text on the auditor's machine."""
    layer = read_layer(ROOT / "sql")
    texts = sum(len(_STRING_BODY.findall(file)) for _, file in layer.files())
    assert texts == sum(len(re.findall(r"^as \$", file, re.MULTILINE)) for _, file in layer.files()) > 100
    with psycopg.connect(database_url) as session:
        session.execute(READER.encode())
        record = record_definitions(session)
        session.execute(
            "update sql_layer set definitions = definitions || %s"
            " where layer_id = (select max(layer_id) from sql_layer)",
            [Jsonb(record)],
        )
        assert check_layer(session).faults == ["text of routine audit.read_leaves, which is not the checkout's"]
        session.rollback()


def test_another_checkout_is_said_and_not_compared(database_url: str, tmp_path: Path) -> None:
    """This happens between an update of the files and the migration."""
    with psycopg.connect(database_url) as session:
        findings = check_layer(session, tmp_path)
        assert findings.faults == []
        assert "the SQL layer of another version" in findings.notes[0]
        session.execute("update sql_layer set definitions = definitions || '{\"postgres\": 9}'")
        assert any("recorded on Postgres 9" in note for note in check_layer(session).notes)
        session.rollback()


@pytest.mark.slow
async def test_verify_names_the_layer_and_exits_with_1(
    conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path, role_url: Callable[[str], str]
) -> None:
    """A reader that returns no rows, so that the rows would be blamed; and settings that leave all rows unchanged."""
    log = SealedLog(conn, ops_pool, auditor_pool, tmp_path / "audit", make_sealer(tmp_path / "audit"))
    await log.write(3)
    await log.seal()
    pulse = Pulse(tmp_path, role_url("pulse_auditor"))
    await pulse("verify", status=3)
    await conn.execute(READER)
    shown = (await pulse("verify", status=1)).stdout
    assert "BROKEN: the SQL layer is not as it was applied: altered routine audit.read_leaves(" in shown
    assert "text of routine audit.read_leaves" in shown
    await conn.execute("create policy hidden on audit_log using (false)")
    assert "added policy hidden on public.audit_log" in (await pulse("verify", "--independent", status=1)).stdout


def test_the_program_prints_each_difference(database_url: str, role_url: Callable[[str], str]) -> None:
    """The ops worker's login runs it."""

    def run(url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "migrations.layer_check"],
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), VARIABLE: url},
            capture_output=True,
            text=True,
        )

    assert (run(role_url("pulse_ops")).returncode, run(role_url("pulse_ops")).stdout) == (0, "")
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("alter table audit_log disable trigger audit_log_append_only")
    done = run(role_url("pulse_ops"))
    assert done.returncode == 1
    assert "altered trigger audit_log_append_only on public.audit_log\n" in done.stdout
    away = run("postgresql://pulse_ops@127.0.0.1:1/pulse")
    assert (away.returncode, away.stdout) == (2, "")
    assert away.stderr
