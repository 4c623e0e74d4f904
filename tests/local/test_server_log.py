"""The server's log never contains statement parameters, because channels have secrets."""

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest

from tests.support.api_client import open_api
from tests.support.migrator import Migrator
from tests.support.replicas import Node, primary

SECRET = "whsec_" + base64.b64encode(b"not for any log of any server ..").decode()
CHANNEL = {"name": "pager", "kind": "webhook", "config": {"url": "https://example.com/hook", "secret": SECRET}}


@pytest.fixture
async def talkative() -> AsyncIterator[Node]:
    """A server that logs each statement, with its parameters unless a setting prevents it."""
    async with primary(
        log_min_messages="warning", log_min_duration_statement="0", log_parameter_max_length_on_error="-1"
    ) as node:
        await node.execute("create database pulse")
        await asyncio.to_thread(Migrator(node.url(database="pulse")).upgrade)
        await node.execute("select ingest.create_tenant('acme', 'Acme')", database="pulse")
        yield node


@pytest.mark.slow
async def test_a_secret_is_not_in_the_log(talkative: Node) -> None:
    """This holds if the role may set the parameter. A failed statement never logs its parameters."""
    url = talkative.url("pulse_app", "pulse")
    await talkative.execute("revoke set on parameter log_parameter_max_length from pulse_app")
    await talkative.execute("alter role pulse_app reset log_parameter_max_length")
    async with open_api(url) as api:
        await api.make("/api/v1/channels", {**CHANNEL, "name": "first"})
        written = talkative.log.read_text()
        # What a server does by itself, and why operators must say it: see docs/operate.md.
        assert SECRET in written
        assert (await api.call("POST", "/api/v1/channels", json={**CHANNEL, "name": "first"})).status_code == 409
        written = talkative.log.read_text()[len(written) :]
        failed = written[written.index("duplicate key value") :]
        assert "delivery.create_channel" in failed
        assert SECRET not in failed
    for statement in (
        "grant set on parameter log_parameter_max_length to pulse_app",
        "alter role pulse_app set log_parameter_max_length = 0",
    ):
        await talkative.execute("alter role pulse_app reset log_parameter_max_length", statement)
        before = len(talkative.log.read_text())
        async with open_api(url) as api:
            channel = await api.make("/api/v1/channels", {**CHANNEL, "name": statement[:5]})
            changed = await api.call("PATCH", f"/api/v1/channels/{channel['channel_id']}", json={"name": statement[:6]})
            assert changed.status_code == 200, changed.text
        written = talkative.log.read_text()[before:]
        assert "delivery.create_channel" in written
        assert SECRET not in written
        await talkative.execute("revoke set on parameter log_parameter_max_length from pulse_app")
