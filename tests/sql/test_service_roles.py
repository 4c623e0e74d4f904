"""One role for each service: it may call what its own code calls, and nothing that only other services call."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from services.local.stack.roster import ROLES
from services.shared import db
from services.shared.audit_writer.event import AuditEvent
from services.shared.audit_writer.journal import copy
from services.shared.audit_writer.line import make_line
from services.shared.settings import UiSettings
from tests.support import seed

SERVICES = Path(__file__).parents[2] / "services"
# Calls of a routine; a select from a view has no parenthesis.
CALL = re.compile(r"\b((?:api|audit|core|delivery|dispatcher|evaluator|ingest|ops|trace)\.[a-z_]+)\(")
VIEW = re.compile(r"\b(?:from|join) ((?:api|audit|ops|trace)\.[a-z_]+)\b(?!\()")
SERVICE_ROLES = [role for role in ROLES.values() if role != "pulse_exporter"]
WORKERS = ("pulse_evaluator", "pulse_dispatcher", "pulse_delivery")
# `pulse audit` has its own access to the trail of all tenants.
OF_AUDITORS = {"audit.read_all_events"}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection while the block lasts."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


def named(pattern: re.Pattern[str], folder: str) -> set[str]:
    """Return everything of the layer that the Python of a folder names."""
    texts = (path.read_text(encoding="utf-8") for path in (SERVICES / folder).rglob("*.py"))
    return {name for text in texts for name in pattern.findall(text)}


@pytest.mark.parametrize("service", [service for service in ROLES if service != "exporter"])
async def test_each_service_may_call_what_its_code_calls(conn: asyncpg.Connection, service: str) -> None:
    """A new call needs a line in sql/92_services.sql."""
    calls = named(CALL, service) - OF_AUDITORS
    known = await conn.fetch(
        "select distinct n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
    )
    assert calls & {row[0] for row in known}
    missing = await conn.fetch(
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname || '.' || p.proname = any ($1) and not has_function_privilege($2, p.oid, 'execute')"
        " union all select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname || '.' || c.relname = any ($3) and not has_table_privilege($2, c.oid, 'select')",
        list(calls),
        ROLES[service],
        list(named(VIEW, service)),
    )
    assert [row[0] for row in missing] == []


async def test_a_service_may_not_call_what_others_call(conn: asyncpg.Connection) -> None:
    """Each routine outside core is compared with the service roles that may call it."""
    rows = await conn.fetch(
        "select p.oid::regprocedure::text as name, array_agg(role order by role) as roles from pg_proc p,"
        " unnest($1::text[]) as role where has_function_privilege(role, p.oid, 'execute') and p.proname not like '\\_%'"
        " and p.pronamespace = any ('{audit,delivery,dispatcher,evaluator,ingest,ops}'::regnamespace[]) group by p.oid",
        SERVICE_ROLES,
    )
    assert {row["name"].partition("(")[0]: row["roles"] for row in rows if len(row["roles"]) > 1} == {
        "audit.newest_checkpoint": ["pulse_ops", "pulse_ui"],
        "audit.record_process": sorted(SERVICE_ROLES),
        "ops.lock_suspects": sorted(set(SERVICE_ROLES) - {"pulse_ui"}),
    }
    alone = {row["name"].partition("(")[0]: row["roles"][0] for row in rows if len(row["roles"]) == 1}
    assert alone["evaluator.evaluate"] == "pulse_evaluator"
    assert alone["dispatcher.dispatch"] == "pulse_dispatcher"
    assert {name for name, role in alone.items() if role == "pulse_delivery"} == {
        "delivery.claim",
        "delivery.extend",
        "delivery.finish",
        "delivery.read_channel_secrets",
        "delivery.reap",
        "delivery.reseal_channel",
    }


async def test_only_delivery_gets_the_secrets_of_channels(
    conn: asyncpg.Connection, role_url: Callable[[str], str]
) -> None:
    """No view or function of another service returns a channel's configuration."""
    await seed.channel(conn, config='{"url": "https://hooks.example/x", "secret": "whsec_only_here"}')
    for role in ROLES.values():
        readable = await conn.fetch(
            "select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind in ('v', 'r', 'p') and has_table_privilege($1, c.oid, 'select')"
            " and has_schema_privilege($1, n.oid, 'usage') and n.nspname !~ '^(pg_|information_schema)'",
            role,
        )
        async with connected(role_url(role)) as service:
            async with service.transaction():
                await service.execute("select set_config('pulse.tenant_id', 'acme', true)")
                if role == "pulse_ui":
                    assert await service.fetchval("select count(*) from api.channels") == 1
                for row in readable:
                    shown = await service.fetch(f"select v::text as line from {row['name']} v")
                    assert not [line for line in shown if "whsec_only_here" in line["line"]], row["name"]
            claim = service.fetch("select * from delivery.claim('evil', 10, 1e9, 8)")
            if role == "pulse_delivery":
                await claim
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await claim


async def test_a_lease_has_a_bound(conn: asyncpg.Connection, role_url: Callable[[str], str]) -> None:
    """A worker that requests thirty years gets ten minutes, also when it extends the lease."""
    channel_id = await seed.channel(conn)
    await seed.route(conn, channel_id)
    await conn.execute("select evaluator.open_alert('acme', 'test', 'n', 'warning', 'm', repeat('a', 32))")
    await conn.execute("update alert_events set dispatched_at = null")
    assert (await conn.fetchrow("select * from dispatcher.dispatch(10)"))["events"] == 1
    left = "select lease_until - now() from notification_jobs where lease_until is not null"
    async with connected(role_url("pulse_delivery")) as worker:
        [job] = await worker.fetch("select * from delivery.claim('evil', 10, 1e9, 8)")
        assert await conn.fetchval(left) <= timedelta(minutes=10)
        kept = "select * from delivery.extend(array['acme'], array[$1::bigint], array[$2::integer], 'infinity')"
        assert len(await worker.fetch(kept, job["job_id"], job["lease_epoch"])) == 1
        assert await conn.fetchval(left) <= timedelta(minutes=10)


@pytest.mark.parametrize("role", WORKERS)
async def test_a_worker_writes_no_event_of_its_own_choice(role_url: Callable[[str], str], role: str) -> None:
    """Neither by function nor by COPY."""
    async with connected(role_url(role)) as worker:
        for statement in (
            "select audit.write(array[audit.event('acme', 'auth.login_success', p_actor_id => 'ada')])",
            "select audit.append('[]')",
            "call audit.record_auth_failures('[]')",
            "insert into public.audit_log (message) values ('m')",
            "select audit.act('ada', 'why')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await worker.execute(statement)


async def test_events_carry_the_service_that_logged_in(
    conn: asyncpg.Connection, role_url: Callable[[str], str]
) -> None:
    """Any session may change its settings, but these change neither service nor actor of a worker's events."""
    forged = (
        "select set_config('pulse.service', 'ui_iot', false), set_config('pulse.actor_type', 'user', false),"
        " set_config('pulse.actor_id', 'ada', false), set_config('pulse.actor_name', 'Ada', false)"
    )
    for role, service in (("pulse_evaluator", "evaluator_iot"), ("pulse_delivery", "delivery_worker")):
        async with connected(role_url(role)) as worker:
            await worker.execute(forged)
            await worker.execute("select audit.record_process('ops_worker', 'host:1', 'started')")
        row = await conn.fetchrow(
            "select source_service, actor_type, actor_id, entity_name from audit_log order by timestamp desc limit 1"
        )
        assert tuple(row) == (service, "service", service, service)
    async with connected(role_url("pulse_ops")) as worker:
        await worker.execute("select audit.record_process('ui_iot', 'host:1', 'stopped')")
    row = await conn.fetchrow("select source_service, actor_id from audit_log order by timestamp desc limit 1")
    assert tuple(row) == ("ops_worker", "ops_worker")
    await seed.device(conn)
    await seed.rule(conn)
    await seed.readings(conn, (0, 90))
    async with connected(role_url("pulse_evaluator")) as worker:
        await worker.execute(forged)
        await worker.execute("select evaluator.evaluate(100)")
    row = await conn.fetchrow(
        "select source_service, actor_type, actor_id from audit_log where event_type = 'alert.opened'"
    )
    assert tuple(row) == ("evaluator_iot", "service", "evaluator_iot")


async def test_the_api_writes_its_own_events_only(conn: asyncpg.Connection, role_url: Callable[[str], str]) -> None:
    """By COPY and by the repair path, an event of another service's name or kind is refused."""
    pool = await db.open_pool(UiSettings(database_url=role_url("pulse_ui")))
    async with pool.acquire() as connection:
        await copy(connection, [make_line(AuditEvent(event_type="audit.read", message="m"), "ui_iot")])
        for event_type, service in (
            ("audit.read", "ops_worker"),
            ("audit.segment_dropped", "ui_iot"),
            ("delivery.delivered", "ui_iot"),
            ("config.rule_created", "ui_iot"),
        ):
            event = AuditEvent(event_type=event_type, message="m")
            with pytest.raises(asyncpg.CheckViolationError, match="pulse_ui may not write"):
                await copy(connection, [make_line(event, service)])
            category, action = event_type.split(".")
            row = {"event_type": event_type, "category": category, "action": action, "source_service": service}
            with pytest.raises(asyncpg.CheckViolationError, match="pulse_ui may not write"):
                await connection.execute("select audit.append($1)", [row])
    assert await conn.fetchval("select count(*) from audit_log where source_service <> 'sql'") == 1
    # Functions that the API calls may write other events.
    async with db.act(pool, tenant_id="acme", actor=db.Actor("user", "ada"), service="ui_iot") as connection:
        await seed.tenant(conn)
        await connection.execute("select ingest.create_tenant('umbrella', 'Umbrella')")
    await pool.close()
