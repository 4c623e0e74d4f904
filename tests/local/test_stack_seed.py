"""The demo's rows: created once through the API's functions, and reused by later starts."""

from pathlib import Path

import asyncpg
import orjson
import pytest

from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.cli.token import device_token
from services.local.demo import factory as demo
from services.local.demo.seed import seed, sink_secret
from services.shared import db

SINK = "http://127.0.0.1:8087"
COUNTS = """
select
  (select count(*) from tenants where tenant_id = 'demo') as tenants,
  (select count(*) from devices) as devices,
  (select count(*) from alert_rules) as rules,
  (select count(*) from notification_channels) as channels,
  (select count(*) from notification_routes) as routes,
  (select count(*) from audit_log) as events
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def counts(conn: asyncpg.Connection) -> dict[str, int]:
    return dict(await conn.fetchrow(COUNTS))


async def test_a_second_start_changes_nothing(app_pool: db.Pool, conn: asyncpg.Connection, home: Home) -> None:
    """It adds neither rows nor audit events."""
    await seed(app_pool, home, sink_url=SINK, devices=20)
    first, file = await counts(conn), home.fleet.read_bytes()
    assert first | {"events": 0} == {
        "tenants": 1,
        "devices": 22,
        "rules": len(demo.RULES),
        "channels": 1,
        "routes": 1,
        "events": 0,
    }
    await seed(app_pool, home, sink_url=SINK, devices=20)
    assert await counts(conn) == first
    assert home.fleet.read_bytes() == file


async def test_every_row_has_its_audit_event_with_actor_and_trace(
    app_pool: db.Pool, conn: asyncpg.Connection, home: Home
) -> None:
    """The seed uses the same functions as any caller."""
    await seed(app_pool, home, sink_url=SINK, devices=3)
    rows = await conn.fetch("select event_type, actor_id, trace_id, source_service from audit_log")
    assert {row["actor_id"] for row in rows} == {"local_stack"}
    assert {row["source_service"] for row in rows} == {"local_stack"}
    assert len({row["trace_id"] for row in rows}) == 1
    assert {"config.tenant_created", "config.device_created", "config.channel_created"} <= {
        row["event_type"] for row in rows
    }


async def test_the_tokens_are_those_of_the_devices(app_pool: db.Pool, conn: asyncpg.Connection, home: Home) -> None:
    """Gateways and directly reporting devices have tokens. Sensors have none."""
    await seed(app_pool, home, sink_url=SINK, devices=60)
    tokens = orjson.loads(home.fleet.read_bytes())["tokens"]
    assert set(tokens) == {demo.HOT_DEVICE, demo.FREE_DEVICE, "gateway-1", "gateway-2"}
    query = "select device_id from ingest.authenticate_devices(array['demo'], array[sha256(convert_to($1, 'UTF8'))])"
    assert {name: await conn.fetchval(query, token) for name, token in tokens.items()} == {n: n for n in tokens}
    assert device_token(home, demo.FREE_DEVICE) == tokens[demo.FREE_DEVICE]
    with pytest.raises(CommandFailed, match="no device sensor-001"):
        device_token(home, "sensor-001")


async def test_lost_tokens_are_replaced(app_pool: db.Pool, conn: asyncpg.Connection, home: Home) -> None:
    """Either the database or the file may be lost. The fleet works afterwards."""
    await seed(app_pool, home, sink_url=SINK, devices=3)
    home.fleet.unlink()
    await seed(app_pool, home, sink_url=SINK, devices=3)
    query = "select device_id from ingest.authenticate_devices(array['demo'], array[sha256(convert_to($1, 'UTF8'))])"
    assert await conn.fetchval(query, device_token(home, demo.HOT_DEVICE)) == demo.HOT_DEVICE
    assert await conn.fetchval("select count(*) from audit_log where message ~ ' changed: token_hash$'") == 3


async def test_other_ports_move_the_channel_and_more_devices_join(
    app_pool: db.Pool, conn: asyncpg.Connection, home: Home
) -> None:
    """The latest arguments apply."""
    await seed(app_pool, home, sink_url=SINK, devices=3)
    await seed(app_pool, home, sink_url="http://127.0.0.1:9087", devices=5)
    config = orjson.loads(await conn.fetchval("select config from notification_channels"))
    assert config == {"url": "http://127.0.0.1:9087/hooks/demo", "secret": sink_secret(home)}
    assert (await counts(conn))["devices"] == 7


async def test_the_rules_fit_the_fleet(app_pool: db.Pool, conn: asyncpg.Connection, home: Home) -> None:
    """A hot furnace opens one alert, and its notification has a channel."""
    await seed(app_pool, home, sink_url=SINK, devices=3)
    await conn.execute(
        "select ingest.record_readings('demo', array[$1], array['temperature'], array[now()], array[95.0], null)",
        demo.HOT_DEVICE,
    )
    await conn.execute("select evaluator.evaluate(100)")
    await conn.execute("select dispatcher.dispatch(100)")
    jobs = await conn.fetch("select kind, payload -> 'alert' ->> 'rule_name' as rule from notification_jobs")
    assert [tuple(job) for job in jobs] == [("opened", "Furnace too hot")]
