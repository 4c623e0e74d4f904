"""Parsing of requests: numbers, times, media types, byte order marks, HEAD, addresses and methods."""

import base64
from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest
from starlette.applications import Starlette

from services.ui_iot.audit.trail import read_place
from services.ui_iot.http.problems import Unprocessable
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.bad_values import NOT_NUMBERS, NOT_TIMES
from tests.support.http_app import Measured, served
from tests.support.problem import assert_problem
from tests.support.raw_http import RawConnection, status_of

READING = {"device_id": "boiler-1", "metric": "heat", "value": 1}
BOM = b"\xef\xbb\xbf"


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn, tags=("attic",))
    async with open_api(app_url) as opened:
        yield opened


async def test_only_plain_digits_are_numbers_and_words_flags(api: Api, conn: asyncpg.Connection) -> None:
    rule_id = await seed.rule(conn)
    assert (await api.call("GET", f"/api/v1/rules/{rule_id}")).status_code == 200
    for text in NOT_NUMBERS:
        for path in (f"/api/v1/devices?limit={text}", f"/api/v1/alerts?rule_id={text}", f"/api/v1/rules/{text}"):
            if path.endswith("/"):
                continue  # the path without its id is another one
            body = assert_problem(await api.call("GET", path), 422)
            assert body["errors"][0]["detail"], path
    for text in ("1", "0", "yes", "on", "t", "True", "TRUE", ""):
        assert_problem(await api.call("GET", f"/api/v1/devices?enabled={text}"), 422)
    for value in (True, "1", 1.0, 1.5, [1]):
        body = {"name": "r", "channel_id": value}
        assert_problem(await api.call("POST", "/api/v1/routes", json=body), 422)
        body = {"name": "r", "metric": "m", "operator": ">", "threshold": 1, "for_seconds": value}
        assert_problem(await api.call("POST", "/api/v1/rules", json=body), 422)


async def test_only_rfc_3339_is_a_time(api: Api, conn: asyncpg.Connection) -> None:
    [alert_id] = await conn.fetchrow(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " values ('acme', 'f', 'r', 'info', 'm', now()) returning alert_id"
    )
    for text in NOT_TIMES:
        assert_problem(await api.call("GET", f"/api/v1/alerts?opened_since={text}"), 422)
        assert_problem(await api.call("POST", f"/api/v1/alerts/{alert_id}/silence", json={"until": text}), 422)
    for value in (1767600000, 1767600000.5, True):
        assert_problem(await api.call("POST", f"/api/v1/alerts/{alert_id}/silence", json={"until": value}), 422)
    assert (await api.call("GET", "/api/v1/alerts?opened_since=2026-01-05T12:00:00%2B01:00")).status_code == 200


@pytest.mark.parametrize("xid", ["007", "+7", "7_0", "\uff17", "18446744073709551615", "9" * 400])
def test_a_cursor_of_the_trail_holds_plain_digits(xid: str) -> None:
    place = [1, xid, "-infinity", "acme", "0190b5a2-7c3e-7d7a-9f5b-0c8f3d2a1b4c"]
    with pytest.raises(Unprocessable):
        read_place(base64.urlsafe_b64encode(orjson.dumps(["audit", *place])).rstrip(b"=").decode())


OTHER_MEDIA = [
    *("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "text/json", "json", ";"),
    *("application/json; charset=utf-16", "application/json; charset=latin-1", "application/json-patch+json"),
    *("application/xml", "*/*", "text/plain+json", "application/jsonx", "application/json, text/plain"),
]
JSON_MEDIA = [
    *("application/json", "APPLICATION/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'),
    *("application/merge-patch+json", "application/vnd.pulse+json", "application/json ; profile=x", None),
]


async def test_a_body_of_another_kind_is_415(api: Api, conn: asyncpg.Connection) -> None:
    for media in OTHER_MEDIA:
        for method, path in (
            ("POST", "/api/v1/devices"),
            ("PATCH", "/api/v1/devices/boiler-1"),
            ("POST", "/api/v1/devices/boiler-1/token"),
            ("DELETE", "/api/v1/devices/boiler-1"),
            ("POST", "/ingest/v1/readings"),
            ("POST", "/auth/refresh"),
        ):
            response = await api.call(method, path, content=b'{"device_id": "b"}', headers={"Content-Type": media})
            assert "application/json" in assert_problem(response, 415)["detail"], (media, path)
            accept = {"POST": "accept-post", "PATCH": "accept-patch"}.get(method, "accept")
            assert response.headers[accept] == "application/json"
    assert await conn.fetchval("select count(*) from devices where token_hash is null") == 1


async def test_json_by_any_of_its_names_is_read(api: Api) -> None:
    for media in JSON_MEDIA:
        headers = {} if media is None else {"Content-Type": media}
        for mark in (b"", BOM):
            body = mark + b'{"name": "n"}'
            renamed = await api.call("PATCH", "/api/v1/devices/boiler-1", content=body, headers=headers)
            assert renamed.status_code == 200, renamed.text
            body = mark + orjson.dumps(READING)
            sent = await api.call("POST", "/ingest/v1/readings", content=body, headers=headers)
            assert sent.status_code == 202, sent.text


async def test_json_is_utf_8(api: Api) -> None:
    """Python's parser guesses UTF-16 and UTF-32, which no other part of Pulse reads."""
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1"):
        for path in ("/api/v1/devices", "/ingest/v1/readings", "/auth/refresh"):
            body = '{"name": "é"}'.encode(encoding)
            response = await api.call("POST", path, content=body, headers={"Content-Type": "application/json"})
            assert_problem(response, 400)
    twice = await api.call("POST", "/api/v1/devices", content=BOM + BOM + b"{}")
    assert_problem(twice, 400)


async def test_a_member_is_named_once(api: Api) -> None:
    for body in (b'{"name": "a", "name": "b"}', b'{"config": {"url": "a", "url": "a"}}'):
        for path in ("/api/v1/devices/boiler-1", "/api/v1/channels/1"):
            refused = await api.call("PATCH", path, content=body)
            assert "twice" in assert_problem(refused, 400)["detail"]


async def test_head_of_probes_and_documents_is_get_without_a_body(api: Api) -> None:
    for path in ("/livez", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/health"):
        got, head = await api.client.get(path), await api.client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
    nowhere = await api.call("HEAD", "/api/v1/nowhere")
    assert (nowhere.status_code, nowhere.headers["content-type"]) == (404, "application/problem+json")
    refused = await api.client.head("/api/v1/devices")
    assert refused.status_code == 401
    post_only = await api.call("HEAD", "/ingest/v1/readings")
    assert (post_only.status_code, post_only.headers["allow"]) == (405, "POST")


async def test_head_is_measured_as_head(api: Api) -> None:
    """HEAD on an endless stream returns the headers and ends."""
    paths = {"/api/v1/devices/boiler-1": "/api/v1/devices/{device_id}", "/api/v1/audit/tail": "/api/v1/audit/tail"}
    for path in paths:
        response = await api.call("HEAD", path)
        assert (response.status_code, response.content) == (200, b"")
    metrics = (await api.client.get("/metrics")).text
    for template in paths.values():
        assert f'_count{{method="HEAD",path_template="{template}",status_code="200"}} 1.0' in metrics


async def test_a_405_names_every_method_of_the_address(api: Api) -> None:
    for path, allowed in (
        ("/api/v1/devices", "GET, HEAD, POST"),
        ("/api/v1/devices/boiler-1", "DELETE, GET, HEAD, PATCH"),
        ("/api/v1/audit/events", "GET, HEAD"),
        ("/livez", "GET, HEAD"),
    ):
        response = await api.call("PUT", path)
        assert allowed in assert_problem(response, 405)["detail"]
        assert response.headers["allow"] == allowed


async def test_an_endless_address_is_414(api: Api) -> None:
    assert_problem(await api.call("GET", "/api/v1/devices?tag=" + "a" * 9000), 414)
    assert_problem(await api.call("GET", "/api/v1/devices/" + "a" * 9000), 414)


async def test_a_device_is_found_by_its_tag(api: Api) -> None:
    found = await api.call("GET", "/api/v1/devices?tag=attic")
    assert [item["device_id"] for item in found.json()["items"]] == ["boiler-1"]
    assert (await api.call("GET", "/api/v1/devices?tag=cellar")).json()["items"] == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_gets_a_problem(sent: bytes, status: int) -> None:
    async with served(Measured(Starlette()).app) as port, RawConnection(port) as connection:
        connection.write(sent)
        head, _, body = (await connection.read_all()).partition(b"\r\n\r\n")
    assert status_of(head) == status
    assert b"content-type: application/problem+json" in head
    problem = orjson.loads(body)
    assert (problem["status"], f"x-trace-id: {problem['trace_id']}".encode() in head) == (status, True)
