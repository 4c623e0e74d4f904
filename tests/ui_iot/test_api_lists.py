"""Pages: every row once despite concurrent changes, at constant cost, and no row of another tenant."""

import base64

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, table

from services.ui_iot.http.problems import Unprocessable
from services.ui_iot.resources.paging import ID, SortOrder, read_cursor, write_cursor
from tests.support import seed
from tests.support.api_client import Api
from tests.support.api_pages import fill, read_all
from tests.support.plans import rows_read
from tests.support.sealer import Seal

LISTS = (
    *("devices", "rules", "channels", "routes", "escalation-policies", "alerts", "deliveries", "audit/events"),
    *("api-keys", "revocations"),
)


@pytest.mark.parametrize("name", LISTS)
async def test_pages_show_every_row_once_and_only_the_tenants(
    api: Api, conn: asyncpg.Connection, seal: Seal, name: str
) -> None:
    await fill(conn, "acme", 7)
    await fill(conn, "other", 5)
    await seal()
    query = "until=2026-01-06T00:00:00Z" if name == "audit/events" else ""
    whole = await read_all(api, name, f"{query}&limit=200".lstrip("&"))
    assert len(whole) == 7
    assert "other" not in orjson.dumps(whole).decode()
    for limit in (1, 2, 3, 7):
        assert await read_all(api, name, f"{query}&limit={limit}".lstrip("&")) == whole
    assert len(await read_all(api, name, query, tenant="other")) == 5
    assert await read_all(api, name, query, tenant="nobody") == []


async def test_a_row_that_comes_or_goes_between_pages_moves_no_other(api: Api, conn: asyncpg.Connection) -> None:
    """With numbered pages, an inserted row would repeat another one and a deleted row would hide one."""
    await fill(conn, "acme", 6)
    first = (await api.call("GET", "/api/v1/devices?limit=3")).json()
    assert [item["device_id"] for item in first["items"]] == ["d1", "d2", "d3"]
    await conn.execute("delete from devices where device_id = 'd2'")
    await conn.execute(
        "insert into devices (tenant_id, device_id, name) values ('acme', 'd0', 'd0'), ('acme', 'd45', 'x')"
    )
    second = (await api.call("GET", f"/api/v1/devices?limit=3&cursor={first['next_cursor']}")).json()
    assert [item["device_id"] for item in second["items"]] == ["d4", "d45", "d5"]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "é",
        base64.urlsafe_b64encode(b"[]").decode(),
        base64.urlsafe_b64encode(b'["devices"]').decode(),
        base64.urlsafe_b64encode(b'["devices",7]').decode(),
        base64.urlsafe_b64encode(b'["devices","a","b"]').decode(),
        base64.urlsafe_b64encode(b'["devices","\\u0000"]').decode(),
        base64.urlsafe_b64encode(b'["rules",7]').decode(),
        base64.urlsafe_b64encode(b'{"devices":1}').decode(),
        base64.urlsafe_b64encode(b"7").decode(),
        "A" * 513,
    ],
)
async def test_a_cursor_that_the_list_did_not_give_out_is_refused(api: Api, cursor: str) -> None:
    response = await api.call("GET", "/api/v1/devices", params={"cursor": cursor})
    assert response.status_code == 422, response.text


async def test_a_cursor_opens_no_other_tenant(api: Api, conn: asyncpg.Connection) -> None:
    """A cursor is a position in an order and grants no access."""
    await fill(conn, "acme", 3)
    await fill(conn, "other", 3)
    cursor = (await api.call("GET", "/api/v1/alerts?limit=1", tenant="other")).json()["next_cursor"]
    items = (await api.call("GET", f"/api/v1/alerts?cursor={cursor}")).json()["items"]
    assert all(item["rule_name"] == "acme" for item in items)


NUMBERED = SortOrder("things", ((table("things", Column("id", BigInteger)).c.id, ID),))


@given(st.integers(0, 2**63 - 1))
def test_a_cursor_survives_the_round_trip(number: int) -> None:
    cursor = write_cursor(NUMBERED, [number])
    assert read_cursor(NUMBERED, cursor) == (number,)
    assert cursor.isascii()


@given(st.text(max_size=60))
def test_no_text_as_cursor_raises_anything_else(text: str) -> None:
    with pytest.raises(Unprocessable):
        read_cursor(NUMBERED, text)


@pytest.fixture
async def crowded(conn: asyncpg.Connection) -> None:
    """Two tenants with 10,000 alerts, devices and deliveries each."""
    for tenant_id in ("acme", "other"):
        await seed.tenant(conn, tenant_id)
        await conn.execute(
            "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
            " select $1, 'f' || n, 'r', 'info', 'm', now() from generate_series(1, 10000) n",
            tenant_id,
        )
        await conn.execute(
            "insert into devices (tenant_id, device_id, name)"
            " select $1, 'd' || to_char(n, 'FM00000'), 'n' from generate_series(1, 10000) n",
            tenant_id,
        )
        await conn.execute(
            "with event as (insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)"
            " select tenant_id, alert_id, 'opened', now(), now() from alerts where tenant_id = $1 returning *)"
            " insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload)"
            " select tenant_id, event_id, alert_id, 1, 'opened', '{}' from event",
            tenant_id,
        )
    await conn.execute("analyze")


@pytest.mark.parametrize(
    ("view", "table_name", "where", "order"),
    [
        ("alerts", "alerts", "alert_id < 5000", "alert_id desc"),
        ("deliveries", "notification_jobs", "job_id < 5000", "job_id desc"),
        ("devices", "devices", "device_id > 'd05000'", "device_id"),
    ],
)
async def test_a_page_reads_a_page_wherever_it_is(
    crowded: None, app_url: str, view: str, table_name: str, where: str, order: str
) -> None:
    """Order, position and limit reach the index through the view."""
    connection = await asyncpg.connect(app_url)
    try:
        async with connection.transaction():
            await connection.execute("select set_config('pulse.tenant_id', 'acme', true)")
            read = await rows_read(connection, f"select * from api.{view} where {where} order by {order} limit 51")
    finally:
        await connection.close()
    assert 0 < read[table_name] <= 60, read
