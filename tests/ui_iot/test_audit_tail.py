"""The tail of the audit trail over real connections: in order, exactly once, resumable, bounded."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.ui_iot.audit.trail import write_place
from services.ui_iot.routes import audit_tail
from tests.support import seed
from tests.support.api_client import EC, ISSUER, Api, open_api, token
from tests.support.audit_pages import write
from tests.support.processes import ready_service
from tests.support.sealer import Seal
from tests.support.tail import served, tail
from tests.support.wait import until

ONLY = "event_type=alert.opened"


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.tenant(conn)
    await seed.tenant(conn, "other")
    async with open_api(app_url, audit_max_tails=4, audit_read_rows_per_window=0) as opened:
        yield opened


@pytest.fixture
async def url(api: Api) -> AsyncIterator[str]:
    async with served(api) as found:
        yield found


async def count_reads(conn: asyncpg.Connection) -> int:
    """Return the number of recorded reads."""
    return int(await conn.fetchval("select count(*) from audit_log where event_type = 'audit.read'"))


async def test_a_tail_sends_what_is_sealed_from_now_on(
    url: str, api: Api, conn: asyncpg.Connection, seal: Seal
) -> None:
    """Each of the tenant's events is sent once, as the JSON that a page shows."""
    await write(conn, 2)
    await seal()
    async with tail(url, ONLY) as stream:
        for _ in range(3):
            await write(conn, 2)
            await write(conn, 2, tenant_id="other")
            await seal()
        await stream.wait_for(6)
    page = (await api.call("GET", f"/api/v1/audit/events?{ONLY}&order=oldest")).json()
    assert stream.events == page["items"][2:]
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert stream.response.headers["cache-control"] == "no-store"
    assert len(stream.response.headers["x-trace-id"]) == 32


async def test_a_tail_can_begin_at_the_beginning_or_where_a_page_ended(
    url: str, api: Api, conn: asyncpg.Connection, seal: Seal
) -> None:
    for _ in range(3):
        await write(conn, 2)
        await seal()
    whole = (await api.call("GET", f"/api/v1/audit/events?{ONLY}&order=oldest")).json()
    newest = (await api.call("GET", f"/api/v1/audit/events?{ONLY}&limit=2")).json()
    first = (await api.call("GET", f"/api/v1/audit/events?{ONLY}&order=oldest&limit=2")).json()
    await write(conn, 2)
    await seal()
    for query, count in (
        (f"start=beginning&{ONLY}", 8),
        (f"after={first['tail_cursor']}&{ONLY}", 6),
        (f"after={whole['tail_cursor']}&{ONLY}", 2),
        (f"after={newest['tail_cursor']}&{ONLY}", 2),
    ):
        async with tail(url, query) as stream:
            await stream.wait_for(count)
        assert len(stream.events) == count, query
        assert stream.event_ids[: -2 if count > 2 else 0] == [item["event_id"] for item in whole["items"]][8 - count :]


async def test_a_client_that_reconnects_misses_nothing_and_gets_nothing_twice(
    url: str, conn: asyncpg.Connection, seal: Seal
) -> None:
    """The connection breaks after any event, even within a transaction. The header overrides the query."""
    for count in (3, 1, 5, 2):
        await write(conn, count)
        await seal()
    async with tail(url, f"start=beginning&{ONLY}") as stream:
        whole = list(await stream.wait_for(11))
        ids = stream.ids[:11]
    for cut in range(1, 11):
        async with tail(url, f"after={ids[0]}&{ONLY}", **{"Last-Event-ID": ids[cut - 1]}) as rest:
            await rest.wait_for(11 - cut)
        assert rest.events == whole[cut:]


async def test_a_place_that_the_trail_does_not_have_is_refused(url: str) -> None:
    place = write_place([5, "0", "-infinity", "", "00000000-0000-0000-0000-000000000000"])
    for query in (f"after={place}", "after=x", "start=x", "limit=5"):
        async with tail(url, query) as stream:
            assert stream.response.status_code == 422, query


async def test_a_tail_is_one_event_however_much_it_sends(
    url: str, api: Api, conn: asyncpg.Connection, seal: Seal
) -> None:
    """Otherwise a tail would feed itself."""
    async with tail(url) as stream:
        for _ in range(5):
            await write(conn, 3)
            await seal()
        await stream.wait_for(15)
    await until(lambda: count_reads(conn))
    row = await conn.fetchrow("select actor_id, details::text d from audit_log where event_type = 'audit.read'")
    assert (row["actor_id"], orjson.loads(row["d"])) == ("alice", {"filter": {"start": "end"}, "events": None})
    assert await count_reads(conn) == 1


async def test_a_long_tail_sends_heartbeats_is_recorded_again_and_ends_with_its_token(
    url: str, conn: asyncpg.Connection, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat carries the position, so that a client that reconnects after a quiet day does not search again."""
    monkeypatch.setattr(audit_tail, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(audit_tail, "RENEWAL_SECONDS", 0.1)
    bearer = token(role="auditor", exp=int(time.time()) + 3)
    async with tail(url, "event_type=system.started", bearer=bearer) as stream:
        await until(lambda: len(stream.comments) >= 5)
        await until(lambda: count_reads(conn))
        await write(conn, 3)
        await seal()
        before = stream.ids[-1]
        await until(lambda: stream.ids[-1] != before)
        assert stream.events == []
        sealed_at = await conn.fetchval("select max(sealed_at) from audit.blocks")
        assert stream.comments[1] == "sealed_at None"
        await until(lambda: stream.comments[-1] == f"sealed_at {sealed_at}")
        await until(lambda: stream.ended)
    assert await count_reads(conn) >= 2


async def test_a_tail_ends_when_its_token_is_revoked(url: str, api: Api, seal: Seal, conn: asyncpg.Connection) -> None:
    """No event is sent after it."""
    async with tail(url) as stream, tail(url, bearer=token(role="auditor", sub="bob")) as other:
        await until(lambda: stream.comments and other.comments)
        await api.make("/api/v1/revocations", {"subject": "alice", "reason": "Laptop stolen"})
        await until(lambda: stream.ended)
        await write(conn, 3)
        await seal()
        await other.wait_for(3)
        assert stream.events == []


async def test_there_is_room_for_so_many_tails_and_one_tenant_gets_half(
    url: str, api: Api, conn: asyncpg.Connection
) -> None:
    other = token(role="auditor", tenant_id="other")
    async with tail(url) as one, tail(url) as two:
        await until(lambda: one.comments and two.comments)
        async with tail(url) as third:
            assert third.response.status_code == 429
            assert third.response.headers["content-type"] == "application/problem+json"
            assert third.response.headers["retry-after"] == "10"
        async with tail(url, bearer=other) as foreign:
            assert foreign.response.status_code == 200
        in_progress = api.process.metrics.registry.get_sample_value("pulse_http_requests_in_progress")
        assert in_progress is not None
        assert in_progress >= 2

    async def all_gone() -> bool:
        return api.process.metrics.registry.get_sample_value("pulse_http_requests_in_progress") == 0

    # A disconnected client is noticed at once, not at the next heartbeat.
    await until(all_gone, seconds=5)
    async with tail(url) as one, tail(url) as two:
        assert (one.response.status_code, two.response.status_code) == (200, 200)


async def test_tenants_that_took_all_tails_make_room_for_another(
    url: str, api: Api, conn: asyncpg.Connection, seal: Seal
) -> None:
    """The evicted tail resumes without a gap. When all tenants hold equally many, the next tenant waits."""
    for tenant_id in ("third", "fourth", "fifth"):
        await seed.tenant(conn, tenant_id)
    bearers = {name: token(role="auditor", tenant_id=name) for name in ("acme", "other", "third", "fourth", "fifth")}
    async with (
        tail(url, ONLY, bearer=bearers["acme"]) as first,
        tail(url, ONLY, bearer=bearers["acme"]) as second,
        tail(url, ONLY, bearer=bearers["other"]) as third,
        tail(url, ONLY, bearer=bearers["other"]) as fourth,
    ):
        await write(conn, 1)
        await seal()
        await second.wait_for(1)
        async with tail(url, ONLY, bearer=bearers["third"]) as new:
            assert new.response.status_code == 200
            await until(lambda: second.ended)
            async with tail(url, ONLY, bearer=bearers["acme"]) as again:
                assert again.response.status_code == 503
            async with tail(url, ONLY, bearer=bearers["fourth"]) as newer:
                await until(lambda: fourth.ended)
                assert newer.response.status_code == 200
                async with tail(url, ONLY, bearer=bearers["fifth"]) as newest:
                    assert newest.response.status_code == 503
        await write(conn, 1)
        await seal()
        cursor = {"Last-Event-ID": second.ids[-1]}
        async with tail(url, ONLY, bearer=bearers["acme"], **cursor) as resumed:
            await resumed.wait_for(1)
        await first.wait_for(2)
        assert [*second.event_ids, *resumed.event_ids] == first.event_ids
        assert (first.ended, third.ended) == (False, False)


async def test_a_client_that_stops_reading_stops_its_queries(
    url: str, conn: asyncpg.Connection, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stalled client delays only its own tail."""
    await conn.execute(
        "select audit.write(array(select audit.event('acme', 'alert.opened', p_message => repeat('m', 2000))"
        " from generate_series(1, 8000) n))"
    )
    await seal()
    read: dict[str, int] = {}
    real = audit_tail.AuditTail.read

    async def counted(self: Any, reading: Any) -> Any:
        read[self.query.severity] = read.get(self.query.severity, 0) + 1
        return await real(self, reading)

    monkeypatch.setattr(audit_tail.AuditTail, "read", counted)
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = url.removeprefix("http://").split(":")
    stalled.connect((host, int(port)))
    stalled.sendall(
        b"GET /api/v1/audit/tail?start=beginning&severity=warning HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer " + token(role="auditor").encode() + b"\r\n\r\n"
    )
    try:
        async with tail(url, f"start=beginning&{ONLY}") as stream:
            await until(lambda: len(stream.events) == 8_000, seconds=60)
        assert read[None] > 15  # type: ignore[index]  # the fast one, which names no severity
        assert 1 <= read["warning"] < 10
    finally:
        stalled.close()


@pytest.mark.slow
async def test_a_stop_ends_tails_cleanly_and_soon(
    app_url: str, ops_url: str, conn: asyncpg.Connection, tmp_path: Path
) -> None:
    """In a real process with a real sealer, an event is sent within seconds of its commit."""
    await seed.tenant(conn)
    keys = tmp_path / "jwks.json"
    keys.write_bytes(orjson.dumps({"keys": [EC.public()]}))
    async with (
        ready_service("services.ops_worker", ops_url) as ops,
        ready_service("services.ui_iot", app_url, jwks_file=str(keys), jwt_issuer=ISSUER) as running,
        tail(running.url, ONLY) as stream,
    ):
        delays = []
        for number in range(1, 6):
            await write(conn, 1)
            started = time.monotonic()
            await stream.wait_for(number)
            delays.append(time.monotonic() - started)
        assert sorted(delays)[2] < 1.5, delays
        stopping = asyncio.create_task(running.stop())
        await until(lambda: stream.ended, seconds=5)
        assert await stopping == 0
        await ops.stop()
    levels = {line["level"] for line in running.lines}
    assert "info" in levels
    assert not levels & {"error", "critical"}
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'audit.read'") == 1
