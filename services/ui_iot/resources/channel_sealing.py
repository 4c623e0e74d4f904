"""Seals the configuration of channels before it leaves this process, which cannot open it."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from services.shared.db import Connection
from services.shared.secret_box import BadKeyFile, protection, read_public_key, seal_config, shown_url
from services.shared.server import Process

log = logging.getLogger(__name__)


def report_protection(process: Process, file: Path | None) -> None:
    """Show in /health how secrets are stored, by the key that the file holds then. Log a warning without a file."""

    def read() -> str:
        try:
            return protection(None if file is None else read_public_key(file))
        except BadKeyFile as fault:
            return f"unknown: {fault}"

    process.facts["channel_secrets"] = read
    if file is None:
        log.warning("channel secrets are stored as %s", read())


Prepare = Callable[[Connection], Awaitable[Any]]
"""Returns the body of the change, on the connection of its transaction."""


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
