"""Changes of the SQL layer outside migrations are named and repaired; harmless ones are left alone."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError

from migrations.layer_catalog import SCHEMAS
from migrations.layer_definitions import SHOWN, find_faults
from migrations.lost_schemas import TABLELESS
from migrations.role_names import RoleNames
from migrations.sql_layer import part_faults
from tests.support.migrator import Migrator, dump_schema
from tests.support.migrator_program import pulse_migrate

RECORDED = "select definitions from public.sql_layer order by layer_id desc limit 1"
BODY = "create or replace function core.severity_rank(p_severity text) returns smallint language sql return 1::smallint"

# A change and the faults that it causes.
DAMAGE = {
    "drop trigger track_update on devices": ["missing or altered trigger track_update on public.devices"],
    "alter table alerts disable trigger track_update": ["missing or altered trigger track_update on public.alerts"],
    """
      drop trigger track_update on gauge;
      create trigger track_update after update on gauge for each row when (false)
        execute function audit._capture_changes('gauge', '{}', '{value}');
      comment on trigger track_update on gauge is 'Makes each change an audit event.';
    """: ["missing or altered trigger track_update on public.gauge"],
    "comment on trigger track_truncate on gauge is null": ["missing or altered trigger track_truncate on public.gauge"],
    "alter table audit_log_default disable trigger audit_log_append_only": [
        "altered trigger audit_log_append_only on partitions of public.audit_log"
    ],
    "drop trigger audit_log_no_truncate on audit_log_default": [
        "altered trigger audit_log_no_truncate on partitions of public.audit_log"
    ],
    "alter table audit_log enable replica trigger audit_log_no_truncate": [
        "altered trigger audit_log_no_truncate on public.audit_log"
    ],
    "drop view api.suppressions": ["missing view api.suppressions"],
    "alter view api.rules set (security_invoker = on)": ["altered view api.rules"],
    """
      create or replace function core.severity_rank(p_severity text) returns smallint
      language sql return 1::smallint
    """: ["altered routine core.severity_rank(p_severity text)"],
    "alter function audit.write reset search_path": ["altered routine audit.write(p_events public.audit_log[])"],
    "revoke execute on function ingest.record_readings from pulse_app": [
        "altered grants on routine ingest.record_readings("
    ],
    "grant execute on function audit.track to public": ["added grants on routine audit.track("],
    "revoke insert (message) on audit_log from pulse_app": ["altered grants on column public.audit_log.message"],
    "grant update on audit_log to pulse_app": ["altered grants on table public.audit_log"],
    "grant delete on audit_log_default to pulse_ops": ["added grants on table partitions of public.audit_log"],
    "revoke usage on schema metrics from pulse_exporter": ["altered grants on schema metrics"],
    "alter default privileges for role pulse_owner in schema metrics revoke select on tables from pulse_exporter": [
        "altered default grants on r in schema metrics"
    ],
    "alter function audit.write owner to current_user": [
        "altered owner of routine audit.write(p_events public.audit_log[])"
    ],
    "alter view audit.recent owner to current_user": ["altered owner of view audit.recent"],
    "comment on view metrics.devices is null": ["missing comment on view metrics.devices"],
    "comment on function core.now is 'else'": ["altered comment on routine core.now()"],
    "create function core.extra() returns int language sql return 1": ["added routine core.extra()"],
}
HARMLESS = [
    "select ops.ensure_partitions(20, 5)",
    "analyze; alter table audit_log alter column message set statistics 500",
    r"""
      create extension citext;
      create table "Own ""%s"" Table" (tenant_id text, "id'\" int primary key, "A%sb\" json, c point, d citext);
      alter table "Own ""%s"" Table" owner to pulse_owner;
      select audit.track(
        '"Own ""%s"" Table"', e'%s it''s \\ ', redact => array['c'], only_columns => array['A%sb\', 'c', 'd'])
    """,
    "alter table gauge rename value to reading",
    "alter table gauge rename to renamed",
    """
      create role pulse_test_reader;
      grant select on api.rules, audit_log to pulse_test_reader;
      drop owned by pulse_test_reader;
      drop role pulse_test_reader
    """,
    """
      do $$ begin
        execute format('alter database %I set intervalstyle = iso_8601', current_database());
        execute format('alter database %I set datestyle = German', current_database());
        execute format('alter database %I set timezone = "Asia/Tokyo"', current_database());
        execute format('alter database %I set extra_float_digits = -15', current_database());
        execute format('alter database %I set bytea_output = escape', current_database());
        execute format('alter database %I set standard_conforming_strings = off', current_database());
        execute format('alter database %I set quote_all_identifiers = on', current_database());
        execute format('alter database %I set search_path = audit, api, public', current_database());
      end $$
    """,
    "create schema other; create view other.mine as select * from api.rules; drop view other.mine",
]


@pytest.fixture
def session(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A migrated database with a table of a user's own; the connection is a superuser's, in autocommit mode."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("set pulse.actor_id = 'tests'")
        connection.execute(
            "create table gauge (id int primary key, value int); alter table gauge owner to pulse_owner;"
            "select audit.track('gauge', only_columns => array['value']); select ops.ensure_partitions()"
        )
        yield connection


def faults(session: psycopg.Connection[Any]) -> list[str]:
    """Return the differences that pulse_owner sees."""
    with session.transaction():
        session.execute(f"set local role {RoleNames().owner}".encode())
        row = session.execute(RECORDED).fetchone()
        assert row is not None
        return find_faults(session, row[0])


def test_the_services_login_may_not_migrate(app_url: str) -> None:
    """Advice to make it a member of the owner would give the services every right."""
    done = pulse_migrate(app_url)
    assert done.returncode == 1
    assert "pulse_app may not migrate: set PULSE_MIGRATION_URL" in done.stderr
    assert "grant" not in done.stdout + done.stderr


def test_each_change_of_the_layer_is_named(session: psycopg.Connection[Any]) -> None:
    """Each change alone, so that the reported name is the right one."""
    assert faults(session) == []
    for damage, expected in DAMAGE.items():
        with session.transaction(force_rollback=True):
            session.execute(damage.encode())
            found = faults(session)
        assert [name[: len(start)] for name, start in zip(found, expected, strict=True)] == expected, damage


def test_an_upgrade_mends_all_of_it_at_once(session: psycopg.Connection[Any], database_url: str) -> None:
    """`alembic check` fails, `alembic upgrade head` names the first, and then the schema is as before."""
    migrator, before = Migrator(database_url), dump_schema(database_url)
    for damage in DAMAGE:
        session.execute(damage.encode())
    count = len(faults(session))
    with pytest.raises(CommandError, match=rf"not as it was applied: missing .* and {count - SHOWN} more: run alembic"):
        migrator.run(command.check)
    said = migrator.upgrade()
    assert f"and {count - SHOWN} more" in said.splitlines()[0]
    assert "dropped routine core.extra(): this SQL layer does not have it" in said
    assert dump_schema(database_url) == before
    assert migrator.upgrade().startswith("nothing to do")
    migrator.run(command.check)


def test_what_happens_every_day_is_no_fault(session: psycopg.Connection[Any], database_url: str) -> None:
    """Partitions, tracking, statistics, other users' triggers and grants, and dropped tables."""
    for harmless in HARMLESS:
        session.execute(harmless.encode())
        assert faults(session) == [], harmless
    done = pulse_migrate(database_url)
    assert (done.stdout.partition(":")[0], done.stderr) == ("nothing to do", "")


@pytest.mark.slow
def test_pulse_migrate_mends_what_it_names(session: psycopg.Connection[Any], database_url: str) -> None:
    """A dropped trigger and an altered view, as in the runbooks and docs/audit.md."""
    session.execute("drop trigger track_update on devices; alter view api.rules set (security_invoker = on)")
    done = pulse_migrate(database_url)
    assert done.stdout.splitlines()[0] == (
        "the SQL layer is not as it was applied: altered view api.rules,"
        " missing or altered trigger track_update on public.devices"
    )
    assert faults(session) == []


def test_what_is_not_the_layers_is_named_and_left_alone(session: psycopg.Connection[Any], database_url: str) -> None:
    """A user's table may have its own triggers, rules and row security; on ours they are reported."""
    session.execute(
        "create function public.touch() returns trigger language plpgsql as 'begin return new; end';"
        "create trigger own before insert on gauge for each row execute function public.touch();"
        "create trigger odd before insert on audit_log for each row execute function public.touch();"
        "create rule quiet as on delete to devices do instead nothing;"
        "alter table alerts enable row level security, force row level security"
    )
    named = [
        "left alone: row security of public.alerts: it is not the SQL layer's",
        "left alone: rule quiet on public.devices: it is not the SQL layer's",
        "left alone: trigger odd on public.audit_log, which calls public.touch(): it is not the SQL layer's",
        "left alone: trigger own on public.gauge, which calls public.touch(): it is not the SQL layer's",
    ]
    migrator, before = Migrator(database_url), dump_schema(database_url)
    said = migrator.upgrade().splitlines()
    assert [*said[:4], said[4].partition(":")[0]] == [*named, "nothing to do"]
    assert migrator.rebuild().splitlines()[:4] == named
    assert dump_schema(database_url) == before


def test_what_a_rebuild_cannot_mend_is_said_once(session: psycopg.Connection[Any], database_url: str) -> None:
    """The owner cannot revoke another role's grant."""
    migrator = Migrator(database_url)
    session.execute(
        "create role pulse_test_grantor; grant usage on schema public to pulse_test_grantor;"
        " grant delete on audit_log to pulse_test_grantor with grant option;"
        " set role pulse_test_grantor; grant delete on audit_log to pulse_app; reset role"
    )
    try:
        said = migrator.upgrade().splitlines()
        fault = "altered grants on table public.audit_log"
        assert said[0] == f"the SQL layer is not as it was applied: {fault}"
        assert said[2] == f"WARNING: differences remain and are recorded: {fault}"
        assert migrator.upgrade().startswith("nothing to do")
    finally:
        session.execute("drop owned by pulse_test_grantor cascade; drop role pulse_test_grantor")


@pytest.mark.parametrize(
    ("older", "reason"),
    [
        ("alter table sql_layer drop column definitions", "its definitions were not recorded"),
        ("update sql_layer set definitions = null", "its definitions were not recorded"),
        (
            "update sql_layer set definitions = jsonb_set(definitions, '{postgres}', '14')",
            "its definitions were recorded on Postgres 14, this is Postgres 1",
        ),
    ],
)
def test_what_cannot_be_compared_is_built_anew_once(
    session: psycopg.Connection[Any], database_url: str, older: str, reason: str
) -> None:
    """A database migrated before definitions were recorded, and one that pg_upgrade moved to another version."""
    migrator, before = Migrator(database_url), dump_schema(database_url)
    session.execute(older.encode())
    with pytest.raises(CommandError, match=reason):
        migrator.run(command.check)
    assert migrator.upgrade().startswith(f"the SQL layer is not as it was applied: {reason}")
    assert dump_schema(database_url) == before
    assert migrator.upgrade().startswith("nothing to do")


@pytest.mark.slow
def test_what_the_tables_lack_is_named_until_it_is_back(session: psycopg.Connection[Any], database_url: str) -> None:
    """A restore ignored an error: no migration makes a missing key or index, and a rebuild keeps reporting it."""
    migrator = Migrator(database_url)
    session.execute("drop table gauge; create table sites (id int primary key); alter table sites owner to pulse_owner")
    assert migrator.upgrade().startswith("nothing to do")
    session.execute(
        "alter table rule_state drop constraint rule_state_rule_id_fkey; drop index ops.escalations_due_at_idx;"
        " alter table alerts alter opened_at drop default, alter opened_at set default now();"
        " alter table alert_events alter decided_at drop default; drop table sites"
    )
    missing = (
        "tables lack constraint rule_state_rule_id_fkey on public.rule_state, default of column"
        " public.alert_events.decided_at, index escalations_due_at_idx on ops.escalations: no migration makes it again"
    )
    for act in (migrator.upgrade, migrator.rebuild, migrator.upgrade):
        assert act().startswith(f"WARNING: {missing}")
        with pytest.raises(CommandError, match=missing):
            migrator.run(command.check)
    session.execute(
        "alter table rule_state add constraint rule_state_rule_id_fkey foreign key (tenant_id, rule_id)"
        " references alert_rules (tenant_id, rule_id) on delete cascade;"
        " create index escalations_due_at_idx on ops.escalations (due_at);"
        " alter table alert_events alter decided_at set default now()"
    )
    assert migrator.upgrade().startswith("nothing to do")
    migrator.run(command.check)


def test_a_disabled_foreign_key_counts_as_missing(session: psycopg.Connection[Any], database_url: str) -> None:
    """An aborted `pg_restore --data-only --disable-triggers` leaves both sides of the key disabled."""
    migrator = Migrator(database_url)
    session.execute("alter table escalation_policies disable trigger all")
    missing = "WARNING: tables lack constraint alert_rules_policy_id_fkey on public.alert_rules, "
    assert migrator.upgrade().startswith(missing)
    assert migrator.upgrade().startswith(missing)
    session.execute("alter table escalation_policies enable trigger all")
    assert migrator.upgrade().startswith("nothing to do")


def test_a_table_that_left_the_list_of_tracked_ones_is_named(
    session: psycopg.Connection[Any], database_url: str
) -> None:
    """A restore may lack rows, and no rebuild would put triggers on such a table again."""
    migrator = Migrator(database_url)
    session.execute("select audit.untrack('gauge'); delete from audit.tracked_tables where entity_type = 'device'")
    assert faults(session) == ["no tracking of public.devices"]
    said = migrator.upgrade()
    assert "WARNING: differences remain and are recorded: no tracking of public.devices" in said
    assert migrator.upgrade().startswith("nothing to do")


# The part that is named, the statement that alters it, and the one that takes it back.
ALTERED_PARTS = {
    "default of column public.audit_log.xid": (
        "alter table audit_log alter xid set default '5'",
        """
          alter table audit_log alter xid set default
            case coalesce(nullif(current_setting('pulse.audit_epoch', true), ''), '0')
              when '0' then pg_current_xact_id()
              else ((current_setting('pulse.audit_epoch')::bigint << 48)
                    + pg_current_xact_id()::text::bigint)::text::xid8
            end
        """,
    ),
    "column public.devices.name": (
        "alter table devices alter name drop not null",
        "alter table devices alter name set not null",
    ),
    "constraint tenants_tenant_id_check on public.tenants": (
        """
          alter table tenants drop constraint tenants_tenant_id_check;
          alter table tenants add constraint tenants_tenant_id_check check (true)
        """,
        """
          alter table tenants drop constraint tenants_tenant_id_check;
          alter table tenants add constraint tenants_tenant_id_check check (tenant_id ~ '^[a-z0-9][a-z0-9-]{0,62}$')
        """,
    ),
    "index escalations_due_at_idx on ops.escalations": (
        "drop index ops.escalations_due_at_idx; create index escalations_due_at_idx on ops.escalations (due_at desc)",
        "drop index ops.escalations_due_at_idx; create index escalations_due_at_idx on ops.escalations (due_at)",
    ),
    "table ops.escalations": (
        "alter table ops.escalations set unlogged",
        "alter table ops.escalations set logged",
    ),
}


def test_an_altered_part_of_a_table_is_named_until_it_is_back(
    session: psycopg.Connection[Any], database_url: str
) -> None:
    """A default, `not null`, a constraint, an index under its old name; a rebuild does not accept the change."""
    migrator = Migrator(database_url)
    session.execute("alter index ops.escalations_due_at_idx set (fillfactor = 70)")
    assert migrator.upgrade().startswith("nothing to do")
    session.execute("; ".join(alters for alters, _ in ALTERED_PARTS.values()).encode())
    names = ", ".join(sorted(ALTERED_PARTS))
    for act in (migrator.upgrade, migrator.rebuild, migrator.upgrade):
        assert act().startswith(f"WARNING: tables have altered {names}: no migration makes it again")
        with pytest.raises(CommandError, match=f"^tables have altered {names}: "):
            migrator.run(command.check)
    # Another major version may write the same definition differently, so only names are compared.
    with session.transaction(force_rollback=True):
        session.execute("update sql_layer set definitions = jsonb_set(definitions, '{postgres}', '14')")
        assert not any(part_faults(session, revision=head(session)))
        session.execute("drop index ops.escalations_due_at_idx")
        missing, altered = part_faults(session, revision=head(session))
        assert (missing, altered) == (["index escalations_due_at_idx on ops.escalations"], [])
    session.execute("; ".join(mends for _, mends in ALTERED_PARTS.values()).encode())
    assert migrator.upgrade().startswith("nothing to do")
    migrator.run(command.check)


def head(session: psycopg.Connection[Any]) -> str:
    """Return the revision of the tables."""
    row = session.execute("select version_num from alembic_version").fetchone()
    assert row is not None
    return str(row[0])


def test_a_detached_default_partition_is_named_until_it_is_back(
    session: psycopg.Connection[Any], database_url: str
) -> None:
    """Rows without their own partition would be refused."""
    migrator = Migrator(database_url)
    session.execute("alter table audit_log detach partition audit_log_default")
    lacks = "WARNING: tables lack default partition public.audit_log_default of public.audit_log: no migration"
    for act in (migrator.upgrade, migrator.rebuild, migrator.upgrade):
        assert act().startswith(lacks)
    with pytest.raises(CommandError, match=r"^tables lack default partition public\.audit_log_default of"):
        migrator.run(command.check)
    session.execute("alter table audit_log attach partition audit_log_default default")
    migrator.upgrade()
    assert migrator.upgrade().startswith("nothing to do")
    migrator.run(command.check)


@pytest.mark.slow
def test_a_lost_schema_of_views_and_routines_comes_back(session: psycopg.Connection[Any], database_url: str) -> None:
    """It returns with its owner, comment, grants and every object in it."""
    rows = session.execute(
        """
select n.nspname, obj_description(n.oid) from pg_namespace n
 where n.nspname = any(%s)
   and not exists (select from pg_class c where c.relnamespace = n.oid and c.relkind <> 'v')
   and not exists (select from pg_type t where t.typnamespace = n.oid and t.typrelid = 0 and t.typelem = 0)
""",
        [list(SCHEMAS)],
    ).fetchall()
    assert dict(rows) == TABLELESS
    migrator, before = Migrator(database_url), dump_schema(database_url)
    for lost in (["api"], ["metrics"], sorted(TABLELESS)):
        for schema in lost:
            session.execute(f"drop schema {schema} cascade".encode())
        with pytest.raises(CommandError, match=r"not as it was applied: missing .*: run alembic upgrade head"):
            migrator.run(command.check)
        said = migrator.upgrade().splitlines()
        assert said[: len(lost)] == [f"schema {schema} was missing: created" for schema in lost]
        assert dump_schema(database_url) == before
        assert migrator.upgrade().startswith("nothing to do")
    session.execute("drop schema dispatcher cascade")
    migrator.rebuild()
    assert dump_schema(database_url) == before


def test_a_lost_schema_with_tables_is_refused(session: psycopg.Connection[Any], database_url: str) -> None:
    """Empty tables would hide the loss."""
    session.execute("drop schema ops cascade; drop schema api cascade")
    refusal = "nothing was changed: schema ops is gone with its tables, which no migration makes: restore a backup"
    for act in (Migrator(database_url).upgrade, Migrator(database_url).rebuild):
        with pytest.raises(CommandError, match=f"^{refusal}$"):
            act()
    assert session.execute("select to_regnamespace('api')").fetchone() == (None,)
