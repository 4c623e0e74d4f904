"""Makes the demo's tenant, devices, rules, channel and route, once; a second start finds them."""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import asyncpg
import orjson
from sqlalchemy import column, select, table

from services.local import demo
from services.local.errors import LocalError
from services.local.home import Home
from services.local.secret_file import replace, write_once
from services.shared import db, tracing

ACTOR = db.Actor(type="service", id="local_stack", name="pulse up")


def sink_secret(home: Home) -> str:
    """The secret that the demo's channel signs with, made on first use; 32 random bytes as Standard Webhooks writes them."""
    return write_once(home.keys / "sink.secret", b"whsec_" + base64.b64encode(secrets.token_bytes(32))).decode()


async def seed(pool: db.Pool, home: Home, *, sink_url: str, devices: int) -> None:
    """Make what is missing and write the fleet's file. Raises LocalError in one line."""
    wanted = demo.devices(devices)
    try:
        with tracing.use(tracing.from_headers(None, None)):
            await _make_tenant(pool)
            tokens = await _make_devices(pool, wanted, known=_known_tokens(home))
            # Written before anything else can fail: the tokens are shown only once.
            fleet = {"devices": [asdict(device) for device in wanted], "tokens": tokens}
            replace(home.fleet, orjson.dumps(fleet))
            await _make_rules(pool)
            await _make_channel(pool, url=f"{sink_url}/hooks/demo", secret=sink_secret(home))
    except asyncpg.PostgresError as error:
        raise LocalError(f"cannot make the demo: {error}") from error


def device_token(home: Home, device_id: str) -> str:
    """Token of a device of the demo. Raises LocalError when there is none."""
    try:
        return str(_known_tokens(home)[device_id])
    except KeyError:
        raise LocalError(
            f"the demo has no device {device_id} with a token; ./pulse up makes {demo.FREE_DEVICE}"
        ) from None


def _known_tokens(home: Home) -> Mapping[str, str]:
    try:
        tokens: Mapping[str, str] = orjson.loads(home.fleet.read_bytes())["tokens"]
    except (OSError, ValueError, KeyError):
        return {}
    return tokens


async def _make_tenant(pool: db.Pool) -> None:
    async with db.act(pool, tenant_id=demo.TENANT_ID, actor=ACTOR, service="local_stack") as connection:
        await connection.execute("select ingest.create_tenant($1, $2)", demo.TENANT_ID, demo.TENANT_NAME)


async def _make_devices(
    pool: db.Pool, wanted: Sequence[demo.DemoDevice], *, known: Mapping[str, str]
) -> dict[str, str]:
    """Tokens of all devices that report; a device whose token was lost gets a new one."""
    there = {row["device_id"] for row in await _list(pool, "devices", "device_id")}
    tokens: dict[str, str] = {}
    async with db.act(pool, tenant_id=demo.TENANT_ID, actor=ACTOR, service="local_stack") as connection:
        for device in wanted:
            if device.device_id not in there:
                body = {
                    "device_id": device.device_id,
                    "name": device.name,
                    "tags": list(device.tags),
                    "is_gateway": device.is_gateway,
                }
                made = await connection.fetchval("select ingest.create_device($1)", body)
                tokens[device.device_id] = made["token"]
            elif device.device_id in known:
                tokens[device.device_id] = known[device.device_id]
            elif device.gateway is None:
                made = await connection.fetchval("select ingest.rotate_device_token($1)", device.device_id)
                tokens[device.device_id] = made["token"]
    return tokens


async def _make_rules(pool: db.Pool) -> None:
    there = {row["name"] for row in await _list(pool, "rules", "name")}
    async with db.act(pool, tenant_id=demo.TENANT_ID, actor=ACTOR, service="local_stack") as connection:
        for rule in demo.RULES:
            if rule["name"] not in there:
                await connection.execute("select evaluator.create_rule($1)", rule)


async def _make_channel(pool: db.Pool, *, url: str, secret: str) -> None:
    """The signed webhook and its route; the address follows the ports of this start."""
    config = {"url": url, "secret": secret}
    channels = {row["name"]: row for row in await _list(pool, "channels", "name", "channel_id", "config")}
    routes = {row["name"] for row in await _list(pool, "routes", "name")}
    async with db.act(pool, tenant_id=demo.TENANT_ID, actor=ACTOR, service="local_stack") as connection:
        found = channels.get(demo.CHANNEL_NAME)
        if found is None:
            body = {"name": demo.CHANNEL_NAME, "kind": "webhook", "config": config}
            found = await connection.fetchval("select delivery.create_channel($1)", body)
        elif found["config"].get("url") != url:
            await connection.execute("select delivery.update_channel($1, $2)", found["channel_id"], {"config": config})
        if demo.ROUTE_NAME not in routes:
            route = {
                "name": demo.ROUTE_NAME,
                "channel_id": found["channel_id"],
                "min_severity": demo.ROUTE_SEVERITY,
            }
            await connection.execute("select dispatcher.create_route($1)", route)


async def _list(pool: db.Pool, view: str, *columns: str) -> list[dict[str, Any]]:
    statement = select(table(view, *(column(name) for name in columns), schema="api"))
    async with db.read_as(pool, tenant_id=demo.TENANT_ID) as connection:
        return await db.select(connection, statement)
