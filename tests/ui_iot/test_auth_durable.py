"""An authentication result is sent only after its row is durable, and no request hangs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.responses import JSONResponse

from services.shared.audit_writer.spool import directories
from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.auth.oidc import Issuer
from tests.support import seed
from tests.support.api_client import Api, open_api, token
from tests.support.identity_provider import Provider
from tests.support.processes import ready_service
from tests.support.table_lock import NOWHERE, WAITING, TableLock
from tests.support.tail import served
from tests.support.wait import until

PATH = "/api/v1/devices"

# Every insert of a read event waits for this connection.
HOLD_READS = """
create function public.hold() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(1);
  return new;
end
$$;
create trigger hold before insert on audit_log
for each row when (new.event_type = 'audit.read') execute function public.hold();
select pg_advisory_lock(1)
"""


@pytest.fixture
async def table_lock(database_url: str) -> AsyncIterator[TableLock]:
    connection = await asyncpg.connect(database_url)
    yield TableLock(connection)
    await connection.close()


async def waits(conn: asyncpg.Connection) -> bool:
    """Return whether a session waits for the lock."""
    return bool(await conn.fetchval(WAITING))


async def count(conn: asyncpg.Connection, event_type: str) -> int:
    """Rows of a type."""
    return int(await conn.fetchval("select count(*) from audit_log where event_type = $1", event_type))


@pytest.mark.parametrize(
    ("make_token", "status", "event_type"),
    [
        (lambda: "rubbish", 401, "auth.login_failure"),
        (lambda: token(role="viewer"), 403, "auth.forbidden"),
        (token, 201, "auth.login_success"),
    ],
)
async def test_the_answer_waits_for_the_row(
    app_url: str,
    conn: asyncpg.Connection,
    table_lock: TableLock,
    issuer: dict[str, str],
    make_token: Callable[[], str],
    status: int,
    event_type: str,
) -> None:
    """With a real process and a locked table, no byte is sent and the handler does not run."""
    await seed.tenant(conn)
    async with (
        ready_service("services.ui_iot", app_url, **issuer, audit_database_seconds="30") as running,
        httpx.AsyncClient(base_url=running.url, timeout=30) as client,
    ):
        await table_lock.hold()
        headers = {"Authorization": f"Bearer {make_token()}"}
        request = asyncio.create_task(client.post(PATH, json={"device_id": "boiler-1"}, headers=headers))
        await until(lambda: waits(conn))
        assert not request.done()
        assert await conn.fetchval("select count(*) from devices") == 0
        await table_lock.release()
        assert (await request).status_code == status
        assert await count(conn, event_type) == 1


@pytest.mark.slow
async def test_what_was_answered_survives_the_process_while_the_database_is_away(
    app_url: str, conn: asyncpg.Connection, table_lock: TableLock, issuer: dict[str, str], spool_dir: Path
) -> None:
    """After a 401 whose row is in the spool, the process is killed and the next one stores the row."""
    async with ready_service("services.ui_iot", app_url, **issuer, audit_database_seconds="0.2") as running:
        await table_lock.hold()
        refused = await running.get(PATH, authorization="Bearer rubbish")
        accepted = await running.get(PATH, authorization=f"Bearer {token()}")
        assert (refused.status_code, accepted.status_code) == (401, 200)
        assert "pulse_audit_spool_records 2.0" in (await running.get("/metrics")).text
        await running.stop(9)
    assert len(directories(spool_dir)) == 1
    await table_lock.release()
    assert await conn.fetchval("select count(*) from audit_log where category = 'auth'") == 0
    async with ready_service("services.ui_iot", app_url, **issuer) as running:
        await until(lambda: _is_stored(conn, "auth.login_failure"))
        await until(lambda: _is_stored(conn, "auth.login_success"))
        assert await running.stop() == 0
    assert directories(spool_dir) == []
    assert await count(conn, "audit.gap") == 0


@pytest.fixture
async def blocked(app_url: str, conn: asyncpg.Connection, table_lock: TableLock) -> AsyncIterator[Api]:
    """The API without database and spool for its trail."""
    await seed.tenant(conn)
    async with open_api(app_url, audit_database_seconds=0.5, audit_spool_dir=NOWHERE) as api:
        await table_lock.hold()
        yield api


async def test_no_request_is_let_in_off_the_record(
    blocked: Api, conn: asyncpg.Connection, table_lock: TableLock
) -> None:
    """The response is 503 with Retry-After, the handler does not run, and the gap is recorded as soon as possible."""
    for method, path in (("POST", PATH), ("GET", PATH), ("GET", "/api/v1/nowhere"), ("PUT", PATH)):
        started = time.monotonic()
        response = await blocked.call(method, path, json={"device_id": "boiler-1"} if method == "POST" else None)
        assert time.monotonic() - started < 2
        assert (response.status_code, response.json()["reason"]) == (503, "audit_unavailable")
        assert response.headers["content-type"] == "application/problem+json"
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["trace_id"] == response.headers["x-trace-id"]
    await table_lock.release()
    await until(lambda: _are_reported_lost(conn, 4))
    await until(lambda: not blocked.backend.audit.is_blocked)
    assert await conn.fetchval("select count(*) from devices") == 0
    assert (await blocked.call("GET", PATH)).status_code == 200


async def test_a_refusal_is_answered_all_the_same(
    blocked: Api, conn: asyncpg.Connection, table_lock: TableLock
) -> None:
    """A refusal grants nothing, so it keeps its status. The gap counts it."""
    assert (await blocked.client.get(PATH)).status_code == 401
    assert (await blocked.call("POST", PATH, role="viewer")).status_code == 403
    await table_lock.release()
    await until(lambda: _are_reported_lost(conn, 2))
    blocked_total = blocked.process.metrics.registry.get_sample_value("pulse_audit_events_blocked_total")
    assert blocked_total == 2


async def test_allow_lets_in_and_counts(app_url: str, conn: asyncpg.Connection, table_lock: TableLock) -> None:
    """The setting is for operators that prefer availability. The gap is recorded all the same."""
    await seed.tenant(conn)
    async with open_api(
        app_url, audit_database_seconds=0.5, audit_spool_dir=NOWHERE, audit_when_blocked="allow"
    ) as api:
        await table_lock.hold()
        assert (await api.call("GET", PATH)).status_code == 200
        await table_lock.release()
        await until(lambda: _is_stored(conn, "audit.gap"))


async def test_a_refresh_token_is_not_spent_for_nothing(
    app_url: str, conn: asyncpg.Connection, table_lock: TableLock
) -> None:
    """While the trail is blocked, the issuer gets no request."""
    await seed.tenant(conn)
    provider = Provider()
    provider.token_answer = JSONResponse({"access_token": token(), "token_type": "Bearer", "expires_in": 300})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(provider.app)) as client:
        issuer = Issuer(client, provider.url, client_id="pulse")
        async with open_api(app_url, issuer=issuer, audit_database_seconds=0.5, audit_spool_dir=NOWHERE) as api:
            await table_lock.hold()
            assert (await api.client.get(PATH)).status_code == 401
            answer = await api.client.post("/auth/refresh", json={"refresh_token": "r1"})
            assert (answer.status_code, answer.json()["reason"]) == (503, "audit_unavailable")
            assert provider.forms == []
            await table_lock.release()
            await until(lambda: not api.backend.audit.is_blocked)
            assert (await api.client.post("/auth/refresh", json={"refresh_token": "r1"})).status_code == 200
            assert await count(conn, "auth.token_refresh") == 1


@pytest.mark.parametrize("path", ["events", "tail?start=beginning"])
async def test_reading_the_trail_is_on_record_before_it_is_shown(
    app_url: str, conn: asyncpg.Connection, path: str
) -> None:
    """While only the row about the read is blocked, no byte of a page or a tail is sent."""
    await seed.tenant(conn)
    await conn.execute(HOLD_READS)
    headers = {"Authorization": f"Bearer {token(role='auditor')}"}
    async with (
        open_api(app_url, audit_database_seconds=30, audit_spool_dir=NOWHERE) as api,
        served(api) as url,
        httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client,
    ):
        request = client.build_request("GET", f"/api/v1/audit/{path}")
        first_byte = asyncio.create_task(client.send(request, stream=True))
        await until(lambda: waits(conn))
        assert await count(conn, "auth.login_success") == 1
        await asyncio.wait([first_byte], timeout=0.5)
        assert not first_byte.done()
        assert await count(conn, "audit.read") == 0
        await conn.execute("select pg_advisory_unlock(1)")
        response = await first_byte
        assert (response.status_code, await count(conn, "audit.read")) == (200, 1)
        await response.aclose()


async def test_a_flood_is_answered_at_once_and_counted(app_url: str, conn: asyncpg.Connection) -> None:
    """Beyond the rate, a refusal does not wait for its row. The count is exact."""
    async with open_api(app_url, audit_flood_rows_per_window=10, audit_flood_window_seconds=0.5) as api:
        for _ in range(60):
            assert (await api.client.get(PATH)).status_code == 401
    query = (
        "select count(*), sum(coalesce((details ->> 'count')::int, 1)) from audit_log"
        " where event_type = 'auth.login_failure'"
    )
    rows, events = await conn.fetchrow(query)
    assert (events, rows < 60) == (60, True)


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.x",
        "a.eyJzdWIiOiJtYWxsb3J5In0.x",
    ],
)
async def test_the_subject_of_a_worthless_token_is_kept_as_a_pseudonym_only(
    app_url: str, conn: asyncpg.Connection, text: str
) -> None:
    """Every attempt on the account has the same pseudonym, and no column contains the name."""
    async with open_api(app_url) as api:
        for _ in range(2):
            assert (await api.client.get(PATH, headers={"Authorization": f"Bearer {text}"})).status_code == 401
    rows = await conn.fetch("select a::text as row, details ->> 'account' as account from audit_log a")
    assert len({row["account"] for row in rows}) == 1
    assert rows[0]["account"].startswith("acct_")
    assert not any("mallory" in row["row"] for row in rows)


async def test_devices_of_a_tenant_are_distinguished_once_they_are_proven(
    app_url: str, conn: asyncpg.Connection
) -> None:
    """An unknown secret counts as the fleet's failure, a known one as the device's success."""
    tokens = {}
    for device_id in ("boiler-1", "boiler-2"):
        await seed.device(conn, device_id)
        tokens[device_id], digest = DeviceTokens.make("acme")
        await conn.execute("update devices set token_hash = $2 where device_id = $1", device_id, digest)
    async with open_api(app_url) as api:
        for text in (*tokens.values(), "pdt_acme_" + "A" * 43, "pdt_acme_" + "B" * 43):
            await api.client.post("/ingest/v1/readings", json=[], headers={"Authorization": f"Bearer {text}"})
    rows: Any = await conn.fetch("select details ->> 'account' from audit_log where details ? 'account'")
    assert len(rows) == 4
    assert len({row[0] for row in rows}) == 3


async def _are_reported_lost(conn: asyncpg.Connection, events: int) -> bool:
    query = "select sum((details ->> 'count')::int) from audit_log where event_type = 'audit.gap'"
    return bool(await conn.fetchval(query) == events)


async def _is_stored(conn: asyncpg.Connection, event_type: str) -> bool:
    return await count(conn, event_type) > 0
