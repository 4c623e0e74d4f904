"""Seals the configuration of channels before it leaves this process, which cannot open it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.shared.db import Connection
from services.shared.secret_box import read_public_key, seal_config, shown_url
from services.ui_iot.resources.change import Prepare


def seal_new(file: Path | None, tenant_id: str, channel: Mapping[str, Any]) -> Prepare:
    """Return the function that seals the body of a new channel. Without a key file, the body stays plain."""

    async def prepare(connection: Connection) -> Any:
        if file is None:
            return channel
        channel_id = await connection.fetchval("select delivery.reserve_channel_id()")
        return await _sealed(connection, file, tenant_id, channel_id, channel) | {"channel_id": channel_id}

    return prepare


def seal_changes(file: Path | None, tenant_id: str, channel_id: int, patch: Mapping[str, Any]) -> Prepare:
    """Return the function that seals the body of a change. Without a key file, the body stays plain."""

    async def prepare(connection: Connection) -> Any:
        if file is None or "config" not in patch:
            return patch
        return await _sealed(connection, file, tenant_id, channel_id, patch)

    return prepare


async def _sealed(
    connection: Connection, file: Path, tenant_id: str, channel_id: int, body: Mapping[str, Any]
) -> dict[str, Any]:
    config = body["config"]
    sealed = {**body, "config": seal_config(read_public_key(file), config, tenant_id=tenant_id, channel_id=channel_id)}
    if config.get("url"):
        sealed["shown_url"] = shown_url(config["url"], await connection.fetchval("select delivery.fingerprint_key()"))
    return sealed
