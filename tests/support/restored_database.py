"""Databases to dump and restore: rows in every table, their contents to compare, the guards that must be restored."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import httpx
import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.cli.database import StackSettings
from services.dispatcher.dispatcher import Dispatcher
from services.ops_worker.sealing.anchors import Anchors, FileAnchor
from services.ops_worker.workers.audit_retention import AuditRetention
from services.shared import db
from services.shared.settings import OpsSettings, UiSettings
from tests.support import seed
from tests.support.delivery import claim, finish
from tests.support.evaluation import evaluator_of
from tests.support.processes import ready_service
from tests.support.receiver import Receiver
from tests.support.sealed_log import SealedLog, make_sealer
from tests.support.wait import until

Url: TypeAlias = Callable[[str | None], str]
"""URL of a database as a role, None for the superuser."""

DAYS = 400
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
TOKEN = "pdt_acme_" + "t" * 43

# The rows of partitions are read through their parents.
_TABLES = """
select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and not c.relispartition and n.nspname not in ('pg_catalog', 'information_schema')
order by 1
"""
# Before retention's limit, in a month that has no other events.
_OLD_EVENTS = f"""
insert into audit_log
  (tenant_id, timestamp, event_id, recorded_at, event_type, category, action, message, source_service)
select 'acme', at, core.uuid_v7(), at, 'alert.opened', 'alert', 'opened', 'm', 'test'
from cast(now() - interval '{DAYS + 40} days' as timestamptz) as at
"""
_POLICY = """
with policy as (insert into escalation_policies (tenant_id, name) values ('acme', 'p') returning policy_id)
insert into escalation_steps select 'acme', policy_id, 1, 5, $1 from policy returning policy_id
"""
_OTHER_ROWS = """
select audit.hold(now() - interval '1 day', now(), 'case 7');
select ops.record_health(array['ui_iot'], array['http://127.0.0.1:1'], array[1.5], array[null]::text[]);
select ops.record_service_metrics(array['ui_iot'], array['requests'], array[7]);
insert into audit.attack_findings (kind, subject, first_at, last_at, failures, accounts, addresses)
values ('brute_force', 'ada', now(), now(), 30, 1, 1);
insert into audit.verifications (scope, verified_at, row_count, fault_count) values ('all', now(), 7, 0);
select ops._count_process('ui_iot', 'started');
insert into evaluator.silences (tenant_id, fingerprint, silenced_until) values ('acme', 'rule:9', now());
insert into ingest.idempotency_keys (tenant_id, key_hash, fingerprint, created_at)
values ('acme', sha256('key'), sha256('body'), now());
select ops._refuse('acme', 'rules', 1, -1::smallint, 2);
insert into evaluator.opening_counts (tenant_id, shard, minute, openings)
values ('acme', 1, date_trunc('minute', now() - interval '1 day'), 3);
insert into api_keys (tenant_id, name, role, scopes, key_hash, expires_at)
values ('acme', 'k', 'viewer', '{devices:read}', sha256('key'), now() + interval '1 day');
select ingest.note_api_key_use('acme', 1);
insert into revocations (tenant_id, subject, reason, expires_at)
values ('acme', 'mallory', 'r', now() + interval '1 day');
"""

# Types without equality, with a loose one, with an exact one, and user-defined; two values with different images.
_OWN_TYPES = """
create schema "My Own";
grant usage on schema "My Own" to pulse_owner;
create type "My Own".pair as (a float8, b json);
create domain "My Own".word as text check (value <> '');
create extension citext schema "My Own";
"""
_KINDS = {
    "json": ("'{\"a\": 1}'", "'{\"a\":  1}'"),
    "jsonb": ("'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
    "point": ("'(1,2)'", "'(1,3)'"),
    "float8": ("0", "'-0'"),
    "real": ("'NaN'", "'Infinity'"),
    "numeric": ("1.0", "1.00"),
    "text[]": ("'{a,NULL}'", "'{a,b}'"),
    "box": ("'(1,1),(0,0)'", "'(2,2),(0,0)'"),
    "bytea": ("'a'", "'b'"),
    "int4range": ("'[1,2]'", "'[1,3]'"),
    "timestamptz": ("'2026-01-01Z'", "'2026-01-01 00:00:00.000001Z'"),
    "interval": ("'1 day'", "'24 hours'"),
    "tsvector": ("'a'", "'a:1'"),
    '"My Own".pair': ("row(1, '[]')", "row(1, '[ ]')"),
    '"My Own".word': ("'a'", "'A'"),
    '"My Own".citext': ("'a'", "'A'"),
}
_COLUMN = '"A ""%s\'\\ column"'
_OWN_TABLE = """
create table "My Own"."Table {number}" (id int primary key, {column} {kind}, other int, gone int);
alter table "My Own"."Table {number}" owner to pulse_owner;
select audit.track(
  $$"My Own"."Table {number}"$$, e'entity {number} \\\\ ''%', only_columns => array[$$A "%s'\\ column$$]);
alter table "My Own"."Table {number}" drop column gone;
insert into "My Own"."Table {number}" values (1, {old}, 0);
"""


@asynccontextmanager
async def pools(url: Url, *roles: str) -> AsyncIterator[list[db.Pool]]:
    """Yield a pool for each role, as its process opens it."""
    kinds: dict[str, Any] = {"pulse_app": UiSettings, "pulse_ops": OpsSettings}
    async with AsyncExitStack() as exits:
        opened = []
        for role in roles:
            pool = await db.open_pool(kinds.get(role, StackSettings)(database_url=url(role)))
            exits.push_async_callback(pool.close)
            opened.append(pool)
        yield opened


@asynccontextmanager
async def superuser(url: Url) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that names its actor."""
    actor = {"pulse.actor_type": "user", "pulse.actor_id": "tests"}
    connection = await asyncpg.connect(url(None), server_settings=actor)
    try:
        yield connection
    finally:
        await connection.close()


async def fill(url: Url, home: Path, hook: str) -> None:
    """Insert rows into every table and seal the audit trail with the key in home; alerts go to the webhook."""
    async with superuser(url) as conn, pools(url, "pulse_app", "pulse_ops", "pulse_auditor") as [app, ops, auditor]:
        log = SealedLog(conn, ops, auditor, home, make_sealer(home))
        await conn.execute(_OLD_EVENTS)
        await log.fill()
        await track_own_tables(conn)
        channel_id = await seed.channel(conn, config=orjson.dumps({"url": hook, "secret": SECRET}).decode())
        await seed.device(conn)
        await conn.execute("update devices set token_hash = $1", hashlib.sha256(TOKEN.encode()).digest())
        await seed.rule(conn, policy_id=await conn.fetchval(_POLICY, channel_id))
        await seed.route(conn, channel_id)
        await seed.device(conn, tenant_id="umbrella")
        await seed.rule(conn, tenant_id="umbrella")
        for tenant_id in ("acme", "umbrella"):
            await seed.readings(conn, (0, 95), tenant_id=tenant_id)
        await evaluator_of(readings=100).step(app)
        await Dispatcher(batch_events=100).step(app)
        await finish(conn, await claim(conn), "retry", status=429, error="busy", retry_after=1)
        await seed.readings(conn, (60, 96))
        await conn.execute(_OTHER_ROWS)
        await conn.execute("select audit.set_retention($1)", DAYS)
        await log.seal()
        anchors = Anchors([FileAnchor(log.checkpoints)], CollectorRegistry())
        assert await AuditRetention(DAYS, log.sealer.keys, anchors).drop(ops) == 1
        await log.seal()


async def track_own_tables(conn: asyncpg.Connection) -> None:
    """Make a user's table for each type; only one column, with a hostile name, is tracked."""
    await conn.execute(_OWN_TYPES)
    for number, (kind, (old, _)) in enumerate(_KINDS.items()):
        await conn.execute(_OWN_TABLE.format(number=number, kind=kind, old=old, column=_COLUMN))


async def change_own_tables(conn: asyncpg.Connection) -> None:
    """Change the tracked column of each table, then another; fail unless each of the former leaves an event."""
    query = "select entity_type from audit_log where event_type = 'config.row_updated' and entity_type ~ '^entity '"
    for number, (old, _) in enumerate(_KINDS.values()):
        await conn.execute(f'update "My Own"."Table {number}" set {_COLUMN} = {old}')
    before = Counter(row[0] for row in await conn.fetch(query))
    for number, (_, new) in enumerate(_KINDS.values()):
        await conn.execute(f'update "My Own"."Table {number}" set {_COLUMN} = {new}')
        await conn.execute(f'update "My Own"."Table {number}" set other = 1')
    found = Counter(row[0] for row in await conn.fetch(query)) - before
    assert found == Counter(f"entity {number} \\ '%" for number in range(len(_KINDS)))


async def contents(url: Url) -> dict[str, tuple[int, str]]:
    """Return the number of rows of each table and a digest of all values in an order that is the same everywhere."""
    query = "select count(*), coalesce(md5(string_agg(r, chr(10) order by r collate \"C\")), '')"
    async with superuser(url) as conn:
        await conn.execute("set timezone = 'UTC'")
        names = [row[0] for row in await conn.fetch(_TABLES)]
        rows = {name: await conn.fetchrow(f"{query} from (select t::text from {name} t) as s (r)") for name in names}
    return {name: (row[0], row[1]) for name, row in rows.items() if row is not None}


async def require_guards(url: Url) -> None:
    """Fail unless a change needs an actor and leaves an event, and the trail cannot be changed."""
    async with superuser(url) as conn:
        assert await conn.fetch("select * from audit._tracking_faults()") == []
        await change_own_tables(conn)
        await conn.execute("set pulse.actor_id = ''")
        for change in ("update alerts set silenced_until = now()", "update devices set name = 'x'"):
            with pytest.raises(asyncpg.PostgresError, match="needs an actor"):
                await conn.execute(change)
        for change in ("delete from audit_log", "truncate audit_log"):
            with pytest.raises(asyncpg.PostgresError, match="append-only"):
                await conn.execute(change)


async def serve(url: Url, receiver: Receiver) -> None:
    """Run the services on a restored database: waiting jobs are delivered, a quiet reading closes the open alert."""
    settings = {
        "allow_private_destinations": "true",
        "auth_rate_limit_per_minute": "0",
        "poll_seconds": "0.5",
    }
    async with AsyncExitStack() as exits:
        running = [
            await exits.enter_async_context(ready_service(f"services.{name}", url("pulse_app"), **settings))
            for name in ("ui_iot", "evaluator_iot", "dispatcher", "delivery_worker")
        ]
        reading = {
            "device_id": "boiler-1",
            "metric": "temperature",
            "value": 20,
            "timestamp": datetime.now(UTC).isoformat(),
        }
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answer = await client.post(
                f"{running[0].url}/ingest/v1/readings",
                json={"readings": [reading]},
                headers={"authorization": f"Bearer {TOKEN}"},
            )
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        await until(lambda: len(receiver.requests) >= 2, seconds=60)
    assert [request.json()["type"] for request in receiver.requests] == ["alert.opened", "alert.closed"]
