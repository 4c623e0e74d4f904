"""POST /ingest/v1/readings: accepted and refused readings, and hostile input."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.ingest import readings
from services.ui_iot.ingest.readings import ReadingLimits, check_readings, decode_readings
from tests.support import seed
from tests.support.api_client import Api, open_api, token
from tests.support.wait import until

PATH = "/ingest/v1/readings"


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn, "boiler-1")
    await seed.device(conn, "boiler-2")
    async with open_api(app_url) as opened:
        yield opened


def reading(**changes: Any) -> dict[str, Any]:
    """Return a good reading with these members changed; a change to ... leaves the member out."""
    good = {"device_id": "boiler-1", "metric": "temperature", "value": 20.5, **changes}
    return {name: value for name, value in good.items() if value is not ...}


async def post(api: Api, body: Any, **rest: Any) -> httpx.Response:
    response: httpx.Response = await api.call("POST", PATH, role="operator", json=body, **rest)
    return response


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[NaN,["], ids=range(3))
async def test_a_deep_body_is_refused_before_it_is_parsed(api: Api, opening: bytes) -> None:
    response = await api.call("POST", PATH, content=opening * 20_000)
    assert (response.status_code, response.json()["detail"]) == (422, "Arrays and objects may be nested 32 deep.")


@pytest.mark.parametrize(
    "body", [{"readings": [reading()]}, [reading()], reading()], ids=["object", "array", "one reading"]
)
async def test_one_reading_may_come_in_three_forms(api: Api, conn: asyncpg.Connection, body: Any) -> None:
    response = await post(api, body, headers={"X-Trace-ID": "ab" * 16})
    assert response.status_code == 202, response.text
    assert response.json() == {"accepted": 1, "duplicates": 0, "overwritten": 0, "refused": [], "trace_id": "ab" * 16}
    row = await conn.fetchrow("select tenant_id, device_id, metric, value, trace_id, timestamp from telemetry")
    assert tuple(row)[:5] == ("acme", "boiler-1", "temperature", 20.5, "ab" * 16)
    assert abs(row["timestamp"] - datetime.now(UTC)) < timedelta(seconds=60)
    assert await conn.fetchval("select count(*) from evaluator.inbox") == 1


async def test_good_readings_are_kept_and_each_bad_one_is_refused_with_its_place(
    api: Api, conn: asyncpg.Connection
) -> None:
    await conn.execute("insert into devices (tenant_id, device_id, name, enabled) values ('acme', 'off', 'off', false)")
    now = datetime.now(UTC)
    sent: list[tuple[Any, str | None]] = [
        (reading(), None),
        (reading(device_id="nobody"), "unknown_device"),
        (reading(value="20"), "invalid_value"),
        (reading(value=True), "invalid_value"),
        (reading(value=None), "invalid_value"),
        (reading(value=...), "invalid_value"),
        (reading(value=[1]), "invalid_value"),
        (reading(device_id="off"), "device_disabled"),
        (reading(device_id="boiler-2", value=10**17), None),
        (reading(device_id=...), "invalid_device_id"),
        (reading(device_id=7), "invalid_device_id"),
        (reading(device_id="a b"), "invalid_device_id"),
        (reading(device_id="a" * 129), "invalid_device_id"),
        (reading(device_id="\u0000"), "invalid_device_id"),
        (reading(metric=...), "invalid_metric"),
        (reading(metric=""), "invalid_metric"),
        (reading(metric="é"), "invalid_metric"),
        (reading(timestamp="yesterday"), "invalid_timestamp"),
        (reading(timestamp=True), "invalid_timestamp"),
        (reading(timestamp=1e300), "invalid_timestamp"),
        (reading(timestamp=now.timestamp() * 1000), "invalid_timestamp"),
        (reading(timestamp=(now - timedelta(days=8)).isoformat()), "timestamp_too_old"),
        (reading(timestamp=-1), "timestamp_too_old"),
        (reading(timestamp=(now + timedelta(minutes=6)).isoformat()), "timestamp_in_future"),
        (reading(ts=5), "invalid_reading"),
        ([], "invalid_reading"),
        (None, "invalid_reading"),
        ("reading", "invalid_reading"),
        (reading(metric="pressure", timestamp=now.timestamp() - 60), None),
    ]
    response = await post(api, {"readings": [item for item, _ in sent]})
    body = response.json()
    assert response.status_code == 202
    assert body["accepted"] == 3
    expected = [(index, reason) for index, (_, reason) in enumerate(sent) if reason]
    assert [(entry["index"], entry["reason"]) for entry in body["refused"]] == expected
    assert all(entry["detail"] for entry in body["refused"])
    stored = await conn.fetch("select device_id, metric from telemetry order by 1, 2")
    assert [tuple(row) for row in stored] == [
        ("boiler-1", "pressure"),
        ("boiler-1", "temperature"),
        ("boiler-2", "temperature"),
    ]

    async def event() -> asyncpg.Record | None:
        return await conn.fetchrow(
            "select tenant_id, actor_id, host(ip_address) ip, details::text details, trace_id"
            " from audit_log where event_type = 'device.readings_refused'"
        )

    row: Any = await until(event)
    details = orjson.loads(row["details"])
    assert (row["tenant_id"], row["actor_id"], row["ip"]) == ("acme", "operator@acme", "203.0.113.9")
    assert (details["refused"], details["reasons"]["unknown_device"]) == (len(expected), 1)
    assert len(details["first"]) == 20
    assert row["trace_id"] == body["trace_id"]


async def test_accepted_readings_are_audited_with_their_sender(api: Api, conn: asyncpg.Connection) -> None:
    await post(api, [reading(), reading(metric="pressure")])
    row = await conn.fetchrow(
        "select actor_id, source_service, details::text details from audit_log"
        " where event_type = 'device.readings_accepted'"
    )
    assert (row["actor_id"], row["source_service"]) == ("operator@acme", "ui_iot")
    assert orjson.loads(row["details"])["accepted"] == 2


async def test_a_reading_sent_twice_is_stored_once(api: Api, conn: asyncpg.Connection) -> None:
    """A device may repeat a request without having received the answer."""
    body = [reading(timestamp=datetime.now(UTC).isoformat())]
    assert (await post(api, body)).json()["accepted"] == 1
    again = (await post(api, body)).json()
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    assert await conn.fetchval("select count(*) from telemetry") == 1


async def test_stored_readings_wake_the_evaluators(api: Api, conn: asyncpg.Connection) -> None:
    """Duplicates wake no worker."""
    heard: list[str] = []
    await conn.add_listener("pulse_evaluator", lambda *arguments: heard.append(str(arguments[2])))
    body = [reading(timestamp=datetime.now(UTC).isoformat())]
    for _ in range(2):
        await post(api, body)
        await conn.execute("select 1")
        assert heard == ["pulse_evaluator"]
    await conn.reset()


async def test_readings_without_timestamp_are_not_taken_for_one(api: Api, conn: asyncpg.Connection) -> None:
    response = await post(api, [reading(value=number) for number in range(50)])
    assert response.json()["accepted"] == 50
    values = [row["value"] for row in await conn.fetch("select value from telemetry order by timestamp")]
    assert values == list(range(50))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T12:00:00Z", "2026-01-05T12:00:00+00:00"),
        ("2026-01-05t12:00:00z", "2026-01-05T12:00:00+00:00"),
        ("2026-01-05 12:00:00+00:00", "2026-01-05T12:00:00+00:00"),
        ("2026-01-05T13:30:00+01:30", "2026-01-05T12:00:00+00:00"),
        ("2026-01-05T12:00:00.123456789Z", "2026-01-05T12:00:00.123456+00:00"),
        ("2026-01-05T12:00:00.5Z", "2026-01-05T12:00:00.500000+00:00"),
        (1767614400, "2026-01-05T12:00:00+00:00"),
        (1767614400.5, "2026-01-05T12:00:00.500000+00:00"),
        ("2026-01-05T12:00:00", None),
        ("2026-01-05", None),
        ("20260105T120000Z", None),
        ("2026-W02-1T12:00:00Z", None),
        ("2026-01-05T12:00Z", None),
        ("2026-02-30T12:00:00Z", None),
        ("2026-01-05T12:00:60Z", None),
        ("2026-01-05T25:00:00Z", None),
        ("2026-01-05T12:00:00+99:00", None),
        ("0000-01-05T12:00:00Z", None),
        ("٢٠٢٦-01-05T12:00:00Z", None),  # digits of another script
        ("1767614400", None),
        ("", None),
        ({}, None),
    ],
)
def test_timestamps_are_rfc_3339_or_seconds(text: Any, expected: str | None) -> None:
    limits = ReadingLimits(datetime(2026, 1, 5, 13, tzinfo=UTC), 86400, 300)
    batch = check_readings([reading(timestamp=text)], limits)
    assert [time.astimezone(UTC).isoformat() for time in batch.timestamps] == ([expected] if expected else [])
    assert [entry["reason"] for entry in batch.refused] == ([] if expected else ["invalid_timestamp"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b'"text"',
        b'{"readings": {}}',
        b'{"readings": null}',
        b'{"readings": [], "more": 1}',
        b'"\\ud800"',
        b"NaN",
    ],
    ids=range(9),
)
async def test_a_body_that_holds_no_readings_is_a_problem(api: Api, conn: asyncpg.Connection, body: bytes) -> None:
    response = await api.call("POST", PATH, content=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["trace_id"] == response.headers["x-trace-id"]
    assert await conn.fetchval("select count(*) from telemetry") == 0


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{",
        b"[" * 20,
        b'{"a":' * 20,
        b"[NaN" + b",[" * 20,
        b'[{"device_id":"boiler-1","metric":"t","value":1e999}',
        b'[{"device_id":"\xed\xa0\x80","metric":"t","value":1}]',
        b"\xff\xfe",
        b"\x1f\x8b\x08\x00",
        '[{"device_id":"boiler-1","metric":"t","value":1}]'.encode("utf-16"),
    ],
    ids=range(10),
)
async def test_a_body_that_is_not_json_is_a_bad_request(api: Api, conn: asyncpg.Connection, body: bytes) -> None:
    response = await api.call("POST", PATH, content=body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert await conn.fetchval("select count(*) from telemetry") == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"device_id":"boiler-1","metric":"t","value":1e999}', "invalid_value"),
        (b'{"device_id":"boiler-1","metric":"t","value":-1e999}', "invalid_value"),
        (b'{"device_id":"boiler-1","metric":"t","value":NaN}', "invalid_value"),
        (b'{"device_id":"boiler-1","metric":"t","value":-Infinity}', "invalid_value"),
        (b'{"device_id":"boiler-1","metric":"t","value":' + b"9" * 400 + b"}", "invalid_value"),
        (b'{"device_id":"boiler-1","metric":"t","value":' + b"9" * 5000 + b"}", "invalid_value"),
        (b'{"device_id":"boiler-1","metric":"t","value":"\\ud800"}', "invalid_value"),
        (b'{"device_id":"boiler-1\\ud800","metric":"t","value":1}', "invalid_device_id"),
        (b'{"device_id":"boiler-1","metric":"\\udfff","value":1}', "invalid_metric"),
        (b'{"device_id":"boiler-1","metric":"t","value":1,"timestamp":"\\ud800"}', "invalid_timestamp"),
        (b'{"device_id":"boiler-1","metric":"t","value":1,"timestamp":NaN}', "invalid_timestamp"),
        (b'{"device_id":"boiler-1","metric":"t","value":1,"\\ud800":1}', "invalid_reading"),
        (b'"\\ud800"', "invalid_reading"),
    ],
    ids=range(13),
)
@pytest.mark.parametrize("form", [b"[%s,%s,%s]", b'{"readings":[%s,%s,%s]}'], ids=["array", "object"])
async def test_a_reading_that_no_strict_reader_takes_costs_only_itself(
    api: Api, conn: asyncpg.Connection, bad: bytes, reason: str, form: bytes
) -> None:
    """JSON parsers refuse the whole document for it. The other readings are kept."""
    good = [orjson.dumps(reading(value=value)) for value in (7, 8)]
    response = await api.call("POST", PATH, role="operator", content=form % (good[0], bad, good[1]))
    assert response.status_code == 202, response.text
    body = response.json()
    assert (body["accepted"], [(entry["index"], entry["reason"]) for entry in body["refused"]]) == (2, [(1, reason)])
    rows = await conn.fetch("select device_id, metric, value from telemetry order by value")
    assert [tuple(row) for row in rows] == [("boiler-1", "temperature", 7.0), ("boiler-1", "temperature", 8.0)]


def test_an_integer_that_no_float_holds_is_refused() -> None:
    batch = check_readings([reading(value=10**400), reading(value=-(10**400)), reading(timestamp=10**400)], LIMITS)
    assert [entry["reason"] for entry in batch.refused] == ["invalid_value", "invalid_value", "invalid_timestamp"]


def test_names_that_are_too_long_are_not_remembered() -> None:
    """The cache outlives the request, so thousands of long names would fill the memory."""
    remembering = readings._is_device_id, readings._is_metric  # noqa: SLF001  # their memory is what this is about
    for function in remembering:
        function.cache_clear()
    batch = check_readings([reading(device_id="a" * 129), reading(metric="a" * 129)], LIMITS)
    assert [entry["reason"] for entry in batch.refused] == ["invalid_device_id", "invalid_metric"]
    assert [function.cache_info().currsize for function in remembering] == [1, 0]
    kept = reading(device_id="b" * 128, metric="b" * 128, timestamp=LIMITS.now.isoformat())
    assert check_readings([kept], LIMITS).refused == []
    assert [function.cache_info().currsize for function in remembering] == [2, 1]


async def test_the_number_of_readings_is_bounded(app_url: str, conn: asyncpg.Connection) -> None:
    await seed.device(conn)
    async with open_api(app_url, ingest_max_readings=10) as api:
        assert (await post(api, [reading()] * 10)).status_code == 202
        refused = await post(api, [reading()] * 11)
        assert (refused.status_code, refused.json()["title"]) == (413, "Content Too Large")


async def test_ten_thousand_readings_go_in_one_call(api: Api, conn: asyncpg.Connection) -> None:
    start = datetime.now(UTC) - timedelta(hours=4)
    body = [reading(timestamp=(start + timedelta(seconds=number)).isoformat()) for number in range(10_000)]
    response = await post(api, body)
    assert (response.status_code, response.json()["accepted"]) == (202, 10_000)
    assert (await post(api, [*body, reading()])).status_code == 413
    assert await conn.fetchval("select count(*) from telemetry") == 10_000


async def test_a_body_is_refused_by_its_announced_length_before_it_is_read(api: Api) -> None:
    """A body with a false length is refused while it arrives."""
    most = api.backend.settings.ingest_max_body_bytes
    read = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(most // 65536 + 10):
            read += 65536
            yield b" " * 65536

    announced = await api.call("POST", PATH, content=stream(), headers={"Content-Length": str(most + 1)})
    assert (announced.status_code, announced.json()["status"], read) == (413, 413, 0)
    endless = await api.call("POST", PATH, content=stream())
    assert endless.status_code == 413
    assert most < read <= most + 65536


async def test_a_client_that_leaves_in_mid_body_is_no_fault_of_ours(
    api: Api, conn: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted as disconnected, stores nothing and logs no error."""
    messages: list[Any] = [
        {"type": "http.request", "body": b'[{"device_id": "boi', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token()}".encode())],
        "client": ("203.0.113.9", 1),
    }
    await api.client._transport.app(scope, receive, send)  # type: ignore[attr-defined]  # noqa: SLF001  # past httpx
    labels = {"method": "POST", "path_template": PATH, "status_code": "499"}
    name = "pulse_http_request_duration_seconds_count"
    assert api.process.metrics.registry.get_sample_value(name, labels) == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert await conn.fetchval("select count(*) from telemetry") == 0


@pytest.fixture
async def gateway(conn: asyncpg.Connection, api: Api) -> str:
    """The token of a device, which a test may make a gateway."""
    text, digest = DeviceTokens.make("acme")
    await conn.execute("update devices set token_hash = $1 where device_id = 'boiler-1'", digest)
    return text


async def test_a_device_reports_itself_and_a_gateway_any_device(
    api: Api, conn: asyncpg.Connection, gateway: str
) -> None:
    headers = {"Authorization": f"Bearer {gateway}"}
    body = [reading(), reading(device_id="boiler-2"), reading(device_id="nobody")]
    first = (await api.client.post(PATH, json=body, headers=headers)).json()
    assert first["accepted"] == 1
    assert [entry["reason"] for entry in first["refused"]] == ["device_not_allowed", "device_not_allowed"]
    await api.call("PATCH", "/api/v1/devices/boiler-1", json={"is_gateway": True})
    second = (await api.client.post(PATH, json=body, headers=headers)).json()
    assert second["accepted"] == 2
    assert [entry["reason"] for entry in second["refused"]] == ["unknown_device"]
    actors = await conn.fetch("select distinct actor_type, actor_id from audit_log where action = 'readings_accepted'")
    assert [tuple(row) for row in actors] == [("device", "boiler-1")]


async def test_readings_reach_the_callers_tenant_only(api: Api, conn: asyncpg.Connection) -> None:
    """A device of the same name in another tenant is another device."""
    await seed.device(conn, "boiler-1", tenant_id="other")
    await post(api, reading(), tenant="other")
    await post(api, reading(device_id="boiler-2"), tenant="other")
    rows = await conn.fetch("select tenant_id, device_id from telemetry")
    assert [tuple(row) for row in rows] == [("other", "boiler-1")]


async def test_concurrent_batches_with_the_same_readings_store_each_once(api: Api, conn: asyncpg.Connection) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    body = [
        reading(device_id=f"boiler-{1 + number % 2}", timestamp=(start + timedelta(seconds=number)).isoformat())
        for number in range(500)
    ]
    responses = await asyncio.gather(*(post(api, body if turn % 2 else body[::-1]) for turn in range(8)))
    assert [response.status_code for response in responses] == [202] * 8
    results = [response.json() for response in responses]
    assert sum(result["accepted"] for result in results) == 500
    assert sum(result["duplicates"] for result in results) == 3500
    assert await conn.fetchval("select count(*) from telemetry") == 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
MEMBERS = st.dictionaries(st.sampled_from(["device_id", "metric", "value", "timestamp", "x"]), JSON, max_size=5)
LIMITS = ReadingLimits(datetime(2026, 1, 5, 13, tzinfo=UTC), 86400, 300)


@given(st.lists(JSON | MEMBERS | st.builds(reading, timestamp=JSON) | st.builds(reading, value=JSON), max_size=8))
def test_every_reading_is_kept_or_refused_once(items: list[Any]) -> None:
    """The items are arbitrary JSON. Every accepted reading can be stored."""
    batch = check_readings(items, LIMITS)
    assert sorted([*batch.positions, *(entry["index"] for entry in batch.refused)]) == list(range(len(items)))
    assert all(-1.8e308 < value < 1.8e308 for value in batch.values)
    assert all(time.tzinfo is not None for time in batch.timestamps)


@given(st.binary(max_size=200))
def test_no_bytes_make_decoding_raise_anything_else(body: bytes) -> None:
    try:
        found = decode_readings(body)
    except ValueError:
        return
    assert found is None or isinstance(found, list)
