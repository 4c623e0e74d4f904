"""The treatment of the layer by migrations, in a small checkout: two revisions, one audited table, one view."""

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from alembic import command
from alembic.util import CommandError

from migrations.layer_catalog import SCHEMAS
from tests.support.migrator import Migrator, dump_schema
from tests.support.wait import until

REVISION = '''
from alembic import op
revision = "{revision}"
down_revision = {down_revision!r}

def upgrade():
    op.get_bind().connection.cursor().execute("""{up}""")

def downgrade():
    op.get_bind().connection.cursor().execute("""{down}""")
'''
FIRST_UP = """
create schema audit;
create schema api;
create table public.things (tenant_id text, name text);
create table public.trail (layer text, name text);
create table api.sorted (name text);
"""
FIRST_DOWN = "drop table public.things, public.trail, api.sorted; drop schema audit, api;"
TRIGGER = """
create function audit._log_thing() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $fn$
begin
  insert into public.trail values ('{layer}', new.name);
  return null;
end $fn$;
create trigger things_audit after insert on public.things for each row execute function audit._log_thing();
"""
VIEW = "create view api.things as select {columns} from public.things where name not like '100%:name';\n"
GRANT = "grant usage on schema api to pulse_app;\ngrant select on {tables} to pulse_app;\n"


class World(Migrator):
    """A checkout whose files the test writes."""

    def write_sql(self, **files: str) -> None:
        """Replace files of sql/; an empty text removes one. Names give the path: api_things is api/things.sql."""
        for name, text in files.items():
            path = self.sql / (name.replace("_", "/", 1) + ".sql")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text) if text else path.unlink()

    def write_revision(self, number: int, *, up: str, down: str = "") -> None:
        """Add a revision to the checkout."""
        down_revision = f"{number - 1:04}" if number > 1 else None
        text = REVISION.format(revision=f"{number:04}", down_revision=down_revision, up=up, down=down)
        (self.versions / f"{number:04}_r.py").write_text(text)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as superuser and return its rows."""
        with psycopg.connect(self.url) as session:
            cursor = session.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def world(empty_url: str, tmp_path: Path) -> World:
    """Revision 0001 with layer one, neither in the database yet."""
    made = World(empty_url, sql=tmp_path / "sql", versions=tmp_path / "versions")
    made.versions.mkdir()
    made.write_revision(1, up=FIRST_UP, down=FIRST_DOWN)
    made.write_sql(audit_log=TRIGGER.format(layer="one"), api_things=VIEW.format(columns="name"))
    made.write_sql(z_grants=GRANT.format(tables="api.things, public.things"))
    return made


def second_release(world: World) -> None:
    """Write revision 0002 with layer two: table, view and trigger change, and a grant on the table goes."""
    world.write_revision(
        2,
        up="alter table public.things add color text",
        down="alter table public.things drop color",
    )
    world.write_sql(audit_log=TRIGGER.format(layer="two"), api_things=VIEW.format(columns="name, color"))
    world.write_sql(z_grants=GRANT.format(tables="api.things, public.trail"))


def test_an_edited_view_reaches_the_database_without_a_revision(world: World) -> None:
    """sql/ is the only place to edit behavior."""
    world.upgrade()
    world.write_sql(api_things=VIEW.format(columns="name, tenant_id as owner"))
    world.upgrade()
    assert world.query("select name, owner from api.things") == []
    assert world.query("select revision from public.sql_layer") == [("0001",), ("0001",)]


def test_a_removed_file_removes_its_object(world: World) -> None:
    """`create or replace` alone would leave the object behind."""
    world.upgrade()
    world.write_sql(audit_log="")
    assert "dropped routine audit._log_thing(): this SQL layer does not have it" in world.upgrade()
    world.query("insert into public.things values ('t', 'a')")
    assert world.query("select * from public.trail") == []


def test_the_second_run_does_nothing_and_takes_no_table_lock(world: World) -> None:
    """A service that migrates at each start neither waits for a long transaction nor blocks other sessions."""
    world.upgrade()
    with psycopg.connect(world.url) as session:
        session.execute("lock table public.things, public.trail, api.sorted, api.things in access exclusive mode")
        said = world.upgrade().splitlines()
    assert said[0].startswith(
        "the SQL layer was not compared with the catalog: canceling statement due to lock timeout"
    )
    assert said[1].startswith("nothing to do: revision 0001")


def test_rollback_restores_exactly_the_layer_that_ran_there(world: World) -> None:
    """A downgrade restores the previous release's triggers, views and grants, for any files in the checkout."""
    world.upgrade()
    first = dump_schema(world.url)
    second_release(world)
    world.upgrade()
    second = dump_schema(world.url)
    world.downgrade("-1")
    assert dump_schema(world.url) == first
    world.query("insert into public.things values ('t', 'a')")
    assert world.query("select * from public.trail") == [("one", "a")]
    world.upgrade()
    assert dump_schema(world.url) == second


def test_no_recorded_layer_leaves_none_and_says_so(world: World) -> None:
    """A revision that never ran a layer gets none: callers are refused, and no write is unaudited."""
    second_release(world)
    world.upgrade()
    assert "no SQL layer is recorded for revision 0001" in world.downgrade("-1")
    assert world.query("select count(*) from pg_trigger where not tgisinternal") == [(0,)]
    assert world.query("select has_table_privilege('pulse_app', 'public.trail', 'select')") == [(False,)]


def test_a_failing_revision_leaves_everything_as_it_was(world: World) -> None:
    """Revision, view, trigger and record are unchanged, and the trigger still works."""
    world.upgrade()
    before = dump_schema(world.url)
    second_release(world)
    world.write_revision(2, up="alter table public.things add color text; select 1 / 0")
    with pytest.raises(CommandError, match="nothing was changed: division by zero"):
        world.upgrade()
    assert dump_schema(world.url) == before
    assert world.query("select version_num from alembic_version") == [("0001",)]
    world.query("insert into public.things values ('t', 'a')")
    assert world.query("select * from public.trail") == [("one", "a")]


def test_a_failing_file_is_named_with_its_line(world: World) -> None:
    """The author of a view sees where the server failed."""
    world.write_sql(api_broken="-- one\nselect 1;\nselect nothing;\n")
    with pytest.raises(CommandError, match=r'nothing was changed: sql/api/broken\.sql:3: column "nothing" does not'):
        world.upgrade()
    assert world.query("select to_regclass('public.things')") == [(None,)]


async def test_an_insert_that_waits_behind_a_migration_is_audited(world: World) -> None:
    """At no moment does the table accept rows without its trigger."""
    world.upgrade()
    second_release(world)
    world.write_revision(2, up="alter table public.things add color text; select pg_advisory_xact_lock(7)")
    gate, writer, observer = [await asyncpg.connect(world.url) for _ in range(3)]
    await gate.execute("select pg_advisory_lock(7)")

    async def waits_for_a_lock(condition: str) -> bool:
        found = await observer.fetchval(
            f"select exists (select from pg_locks where not granted and database = "
            f"(select oid from pg_database where datname = current_database()) and {condition})"
        )
        return bool(found)

    migration = asyncio.create_task(asyncio.to_thread(world.upgrade))
    await until(lambda: waits_for_a_lock("locktype = 'advisory' and objid = 7"))
    insert = asyncio.create_task(writer.execute("insert into public.things values ('t', 'waited')"))
    await until(lambda: waits_for_a_lock("relation = 'public.things'::regclass"))
    await gate.execute("select pg_advisory_unlock(7)")
    await asyncio.gather(migration, insert)
    assert world.query("select * from public.trail") == [("two", "waited")]
    for connection in (gate, writer, observer):
        await connection.close()


def test_a_migration_gives_up_behind_a_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not wait for long: every insert would queue behind it."""
    world.upgrade()
    second_release(world)
    before = dump_schema(world.url)
    with psycopg.connect(world.url) as session:
        session.execute("insert into public.things values ('t', 'a')")
        with pytest.raises(CommandError, match=r"drop trigger things_audit .* due to lock timeout"):
            world.upgrade()
    assert dump_schema(world.url) == before


def test_a_default_that_calls_the_layer_fails_loudly(world: World) -> None:
    """Tables never depend on the layer, so no object is dropped by cascade."""
    world.write_sql(api_word="create function api.word() returns text language sql return 'w';")
    world.upgrade()
    world.query("alter table public.things alter name set default api.word()")
    before = dump_schema(world.url)
    world.write_sql(api_things=VIEW.format(columns="tenant_id"))
    with pytest.raises(CommandError, match=r"drop routine api\.word\(\): cannot drop .* default value for column name"):
        world.upgrade()
    assert dump_schema(world.url) == before


def test_a_view_made_by_hand_is_dropped_and_named(world: World) -> None:
    """A schema of the layer holds only the layer's objects, so the upgrade drops and reports any other."""
    world.upgrade()
    world.query("create view api.by_hand as select * from api.things")
    world.write_sql(api_things=VIEW.format(columns="tenant_id"))
    assert "dropped view api.by_hand: this SQL layer does not have it" in world.upgrade()
    assert world.query("select to_regclass('api.by_hand')") == [(None,)]


def test_objects_of_extensions_survive(world: World) -> None:
    """A schema of ours may hold an extension; its views and functions do not belong to the layer."""
    world.upgrade()
    world.query("create extension pg_buffercache schema api")
    count = (
        "select count(*) from pg_depend where deptype = 'e'"
        " and refobjid = (select oid from pg_extension where extname = 'pg_buffercache')"
    )
    before = world.query(count)
    world.write_sql(api_things=VIEW.format(columns="tenant_id"))
    world.upgrade()
    assert world.query(count) == before
    assert world.query("select count(*) > 0 from api.pg_buffercache") == [(True,)]


def test_policies_and_triggers_of_every_kind_go_with_the_layer(world: World) -> None:
    """Policies, triggers on partitioned tables and on views, objects that need one another in both directions."""
    world.write_revision(
        1,
        up=FIRST_UP
        + "create table api.parted (id int) partition by range (id);"
        + "create table api.part partition of api.parted default;",
        down="drop table api.parted;" + FIRST_DOWN,
    )
    world.upgrade()
    plain = dump_schema(world.url)
    world.write_sql(
        y_more="""
create policy own on public.things using (name = current_user);
create trigger parted_audit after insert on api.parted for each row execute function audit._log_thing();
create trigger view_audit instead of insert on api.things for each row execute function audit._log_thing();
create function api.pick(p_things api.things[]) returns setof api.things language sql return p_things[1];
create view api.picked as select t.* from api.pick(array(select t from api.things t)) t;
create procedure api.act(p_in int, inout p_out int) language sql as 'select 1';
create aggregate api.longest(text) (sfunc = pg_catalog.text_larger, stype = text);
create function api.atomic() returns bigint language sql begin atomic select count(*) from api.picked; end;
create function api.act(p_in text default 'a', variadic p_rest int[] default '{}') returns int language sql return 1;
"""
    )
    world.upgrade()
    assert dump_schema(world.url) != plain
    world.write_sql(y_more="")
    world.upgrade()
    assert dump_schema(world.url) == plain


def test_looking_commands_change_nothing(world: World) -> None:
    """current, history, heads, show and check leave an empty database empty and a migrated one alone."""
    looks = (command.current, lambda c: command.history(c, indicate_current=True), command.heads)
    for look in (*looks, lambda config: command.show(config, "0001")):
        world.run(look)
    with pytest.raises(CommandError, match="not up to date"):
        world.run(command.check)
    assert world.query("select count(*) from pg_class where relnamespace = 'public'::regnamespace") == [(0,)]
    world.upgrade()
    before = dump_schema(world.url)
    for look in (*looks, command.check):
        world.run(look)
    assert dump_schema(world.url) == before
    assert world.query("select count(*) from public.sql_layer") == [(1,)]


def test_check_finds_an_edited_layer(world: World) -> None:
    """`alembic check` answers whether `upgrade head` would do anything."""
    world.upgrade()
    world.write_sql(api_things=VIEW.format(columns="tenant_id"))
    with pytest.raises(CommandError, match="SQL layer differs from sql/"):
        world.run(command.check)


def test_a_lost_policy_comes_back(world: World) -> None:
    """Policies, their tables' protection and aggregates are compared with what was applied."""
    world.write_sql(
        y_more="""
alter table public.things enable row level security;
create policy own on public.things for select to pulse_app using (name = current_user);
comment on policy own on public.things is 'Own rows.';
create aggregate api.longest(text) (sfunc = pg_catalog.text_larger, stype = text);
"""
    )
    world.upgrade()
    before = dump_schema(world.url)
    for damage, fault in (
        ("drop policy own on public.things", "missing policy own on public.things"),
        ("alter policy own on public.things to public", "altered policy own on public.things"),
        ("alter table public.things disable row level security", "altered policy own on public.things"),
        ("comment on policy own on public.things is null", "missing comment on policy own on public.things"),
        ("drop aggregate api.longest(text)", "missing routine api.longest(text)"),
        ("create rule r as on insert to api.things do instead nothing", "added rule r on view api.things"),
    ):
        world.query(damage)
        with pytest.raises(CommandError, match=re.escape(f"not as it was applied: {fault}")):
            world.run(command.check)
        assert f"\nthe SQL layer is not as it was applied: {fault}" in f"\n{world.upgrade()}"
        assert dump_schema(world.url) == before
        assert "\nnothing to do" in world.upgrade()


def test_stamp_gives_the_tables_the_layer_of_the_stamped_revision(world: World) -> None:
    """A stamp that contradicts the tables is refused; a correct one rebuilds the layer."""
    with pytest.raises(CommandError, match="nothing was changed: sql/"):
        world.run(lambda config: command.stamp(config, "head"))
    world.upgrade()
    before = dump_schema(world.url)
    world.run(lambda config: command.stamp(config, "base"))
    assert world.query("select to_regclass('api.things'), to_regclass('public.things')::text") == [(None, "things")]
    world.run(lambda config: command.stamp(config, "head"))
    assert dump_schema(world.url) == before


def test_the_layer_is_rebuilt_on_demand(world: World) -> None:
    """After a manual change, `-x layer=rebuild` restores sql/ although no file changed."""
    world.upgrade()
    before = dump_schema(world.url)
    world.query("drop view api.things")
    assert "applied at revision 0001" in world.rebuild()
    assert dump_schema(world.url) == before


def test_the_owner_owns_everything(world: World) -> None:
    """Under any login, the objects belong to pulse_owner, and so do those that a later migration must drop."""
    world.upgrade()
    assert world.query(
        "select relowner::regrole::text from pg_class"
        " where relnamespace in ('public'::regnamespace, 'api'::regnamespace)"
        " union select nspowner::regrole::text from pg_namespace where nspname in ('api', 'audit')"
        " union select proowner::regrole::text from pg_proc where pronamespace = 'audit'::regnamespace"
    ) == [("pulse_owner",)]


async def test_schemas_of_the_layer_are_those_of_the_tables(conn: asyncpg.Connection) -> None:
    """A schema that a revision adds is one the layer must know."""
    found = await conn.fetch("select nspname from pg_namespace where nspowner = 'pulse_owner'::regrole")
    assert {row["nspname"] for row in found} == set(SCHEMAS)
