"""Creation of the demo's tenant, devices, rules, channel and route, unless they exist."""

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.cli.secret_keys import secrets_key_file
from services.cli.token import read_device_tokens
from services.local.demo import factory as demo
from services.shared import db, tracing
from services.shared.secret_box import public_file, shown_url
from services.shared.write_once import replace, write_once
from services.ui_iot.resources.channel_sealing import seal_changes, seal_new

ACTOR = db.Actor(type="service", id="local_stack", name="pulse up")


def sink_secret(home: Home) -> str:
    """Return the signing secret of the demo's channel in the format of Standard Webhooks, created on first use."""
    return write_once(home.keys / "sink.secret", b"whsec_" + base64.b64encode(secrets.token_bytes(32))).decode()


async def seed(pool: db.Pool, home: Home, *, sink_url: str, devices: int) -> None:
    """Create what is missing and write the file of the fleet. Raises CommandFailed."""
    wanted = demo.devices(devices)
    known = read_device_tokens(home)
    tokens = {device.device_id: known.get(device.device_id) or _new_token() for device in wanted if not device.gateway}
    # The file comes first, because the database has only the hashes of the tokens.
    replace(home.fleet, orjson.dumps({"devices": [asdict(device) for device in wanted], "tokens": {**known, **tokens}}))
    try:
        with tracing.use(tracing.start()):
            async with _acting(pool) as connection:
                await connection.execute("select ingest.create_tenant($1, $2)", demo.TENANT_ID, demo.TENANT_NAME)
            await _make_devices(pool, wanted, tokens=tokens)
            await _make_rules(pool)
            key_file = secrets_key_file(home)
            await _make_channel(pool, key_file, url=f"{sink_url}/hooks/demo", secret=sink_secret(home))
    except asyncpg.PostgresError as error:
        raise CommandFailed(f"cannot create the demo: {error}") from error


def _new_token() -> str:
    return f"pdt_{demo.TENANT_ID}_{secrets.token_urlsafe(32)}"


def _acting(pool: db.Pool) -> AbstractAsyncContextManager[db.Connection]:
    return db.act(pool, tenant_id=demo.TENANT_ID, actor=ACTOR, service="local_stack")


async def _make_devices(pool: db.Pool, wanted: Sequence[demo.DemoDevice], *, tokens: Mapping[str, str]) -> None:
    """Create missing devices. A device whose token was lost gets a new one."""
    there = {row["device_id"] for row in await _list(pool, "select device_id from api.devices")}
    async with _acting(pool) as connection:
        for device in wanted:
            token = tokens.get(device.device_id)
            token_hash = hashlib.sha256(token.encode()).digest() if token else None
            if device.device_id not in there:
                body = {
                    "device_id": device.device_id,
                    "name": device.name,
                    "tags": list(device.tags),
                    "is_gateway": device.is_gateway,
                    "token_hash": token_hash.hex() if token_hash else None,
                }
                await connection.execute("select ingest.create_device($1)", body)
            elif token_hash and not await _is_current(connection, token_hash):
                await connection.execute("select ingest.rotate_device_token($1, $2)", device.device_id, token_hash)


async def _is_current(connection: db.Connection, token_hash: bytes) -> bool:
    query = "select device_id from ingest.authenticate_devices($1, $2)"
    return await connection.fetchval(query, [demo.TENANT_ID], [token_hash]) is not None


async def _make_rules(pool: db.Pool) -> None:
    there = {row["name"] for row in await _list(pool, "select name from api.rules")}
    async with _acting(pool) as connection:
        for rule in demo.RULES:
            if rule["name"] not in there:
                await connection.execute("select evaluator.create_rule($1)", rule)


async def _make_channel(pool: db.Pool, key_file: Path, *, url: str, secret: str) -> None:
    """Create the signed webhook and its route, or update its address to the ports of this start."""
    config = {"url": url, "secret": secret}
    key = key_file if public_file(key_file).exists() else None
    channels = {row["name"]: row for row in await _list(pool, "select name, channel_id, config from api.channels")}
    routes = {row["name"] for row in await _list(pool, "select name from api.routes")}
    async with _acting(pool) as connection:
        found = channels.get(demo.CHANNEL_NAME)
        if found is None:
            body = {"name": demo.CHANNEL_NAME, "kind": "webhook", "config": config}
            made = await seal_new(key, demo.TENANT_ID, body)(connection)
            found = await connection.fetchval("select delivery.create_channel($1)", made)
        elif found["config"].get("url") != shown_url(
            url, await connection.fetchval("select delivery.fingerprint_key()")
        ):
            changed = seal_changes(key, demo.TENANT_ID, found["channel_id"], {"config": config})
            patch = await changed(connection)
            await connection.execute("select delivery.update_channel($1, $2)", found["channel_id"], patch)
        if demo.ROUTE_NAME not in routes:
            route = {
                "name": demo.ROUTE_NAME,
                "channel_id": found["channel_id"],
                "min_severity": demo.ROUTE_SEVERITY,
            }
            await connection.execute("select dispatcher.create_route($1)", route)


async def _list(pool: db.Pool, query: str) -> Sequence[Mapping[str, Any]]:
    async with db.read_as(pool, tenant_id=demo.TENANT_ID) as connection:
        rows: Sequence[Mapping[str, Any]] = await connection.fetch(query)
        return rows
