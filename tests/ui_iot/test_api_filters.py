"""Each filter of each list of the OpenAPI document, tried with every value that its rows have and with extreme ones."""

import base64
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg
import orjson
import pytest

from services.ui_iot.app import create_api
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.sealer import Seal

PAGING = ("limit", "cursor", "after", "order", "start")
KEYWORDS = {"type", "title", "description", "default", "enum", "anyOf", "items", "format", "pattern"} | {
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "const")
}
TRACES = ("a" * 32, "b" * 32)
Item = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """A list of the document. filters: schema by name of its query parameters."""

    path: str
    parameters: dict[str, dict[str, Any]]
    tail: bool

    @property
    def filters(self) -> dict[str, dict[str, Any]]:
        """Its parameters that choose rows."""
        return {name: schema for name, schema in self.parameters.items() if name not in PAGING}


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection, seal: Seal) -> AsyncIterator[Api]:
    """Rows of two tenants with two or more values in each column that a filter names."""
    for tenant_id in ("acme", "other"):
        await _fill(conn, tenant_id)
    await seal()
    async with open_api(app_url) as opened:
        yield opened


async def _fill(conn: asyncpg.Connection, tenant_id: str) -> None:
    one = {"tenant_id": tenant_id}
    for number, tags in enumerate([("attic",), ("attic", "boilers"), (), ("A.b_c:d/e-f",)]):
        await seed.device(conn, f"d{number}", tags=tags, **one)
    await conn.execute("update devices set enabled = device_id <> 'd1', is_gateway = device_id = 'd2'")
    policies = await conn.fetch(
        "insert into escalation_policies (tenant_id, name) select $1, 'p' || n from generate_series(1, 2) n"
        " returning policy_id",
        tenant_id,
    )
    rules = [
        await seed.rule(
            conn, name="1", metric="heat", severity="info", device_id="d1", policy_id=policies[0][0], **one
        ),
        await seed.rule(conn, name="2", metric="cold", severity="error", tag="attic", policy_id=policies[1][0], **one),
        await seed.rule(conn, name="3", metric="heat", severity="error", device_id="d2", enabled=False, **one),
        await seed.rule(conn, name="4", metric="a:b/c.d-e_f", severity="warning", tag="boilers", **one),
    ]
    kinds = ("webhook", "slack", "teams", "pagerduty")
    channels = [
        await seed.channel(conn, kind, kind=kind, enabled=kind != "slack", config=_CONFIGS[kind], **one)
        for kind in kinds
    ]
    await seed.route(conn, channels[0], rule_id=rules[0], **one)
    await seed.route(conn, channels[1], rule_id=rules[1], enabled=False, **one)
    await seed.route(conn, channels[1], **one)
    await _fill_alerts(conn, tenant_id, rules, channels)
    await conn.execute(_EVENTS, tenant_id, TRACES)
    await conn.execute(_KEYS, tenant_id)
    await conn.execute(_REVOCATIONS, tenant_id)


_CONFIGS = {
    "webhook": '{"url": "https://a.example/1", "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}',
    "slack": '{"url": "https://hooks.slack.com/services/T000/B000/XXXX"}',
    "teams": '{"url": "https://example.logic.azure.com/workflows/1"}',
    "pagerduty": '{"routing_key": "0123456789abcdef0123456789abcdef"}',
}
_KEYS = """
insert into api_keys (tenant_id, name, role, scopes, key_hash, expires_at)
select $1, role, role, '{devices:read}', sha256(role::bytea), now() + interval '1 day'
from unnest(array['viewer', 'auditor', 'admin']) role
"""
_REVOCATIONS = """
insert into revocations (tenant_id, subject, session, reason, expires_at)
select $1, subject, session, 'r', now() + interval '1 day'
from unnest(array['ann', 'bob', null], array[null, 's1', 's2']) as t (subject, session)
"""
_EVENTS = """
insert into audit_log (
  tenant_id, timestamp, event_id, event_type, category, severity, action, message, source_service, entity_type,
  entity_id, actor_type, actor_id, ip_address, trace_id)
select $1, '2026-01-05T12:00Z'::timestamptz + n * interval '1 minute', gen_random_uuid(), kind,
  split_part(kind, '.', 1),
  (array['info', 'warning', 'error', 'critical', 'debug', 'info', 'info'])[n], split_part(kind, '.', 2), 'm', 'x',
  (array['rule', 'device', 'alert'])[n], (array['1', 'd1', '%_\''"'])[n],
  (array['user', 'device', 'service', 'anonymous'])[n], (array['ann', 'bé\u202e', '%'])[n],
  (array['198.51.100.7', '2001:db8::1'])[n]::inet, ($2::text[])[n]
from unnest(array['config.rule_updated', 'auth.login_failure', 'alert.opened', 'delivery.delivered', 'system.started',
  'audit.read', 'device.readings_accepted']) with ordinality t (kind, n)
"""


async def _fill_alerts(conn: asyncpg.Connection, tenant_id: str, rules: Sequence[int], channels: Sequence[int]) -> None:
    for number in range(5):
        alert_id = await conn.fetchval(
            _ALERT,
            *(tenant_id, number, rules[number % 2], f"d{number % 3}", ("heat", "cold")[number % 2]),
            ("info", "warning", "error", "critical", "info")[number],
            ("open", "acknowledged", "closed", "open", "open")[number],
            TRACES[number % 2],
        )
        state = ("pending", "leased", "delivered", "dead", "dead")[number]
        await conn.execute(_JOB, tenant_id, alert_id, channels[number % 3], state, TRACES[number % 2])


_ALERT = """
insert into alerts (tenant_id, fingerprint, rule_id, rule_name, device_id, metric, severity, status, message,
  opened_at, acknowledged_at, acknowledged_by, closed_at, close_reason, trace_id)
select $1, 'f' || $2::integer, $3, 'r', $4, $5, $6, $7::text, 'm', t.at, case when $7 = 'acknowledged' then t.at end,
  case when $7 = 'acknowledged' then 'ann' end, case when $7 = 'closed' then t.at end,
  case when $7 = 'closed' then 'cold' end, $8
from (select '2026-01-05T12:00Z'::timestamptz + $2 * interval '1 minute') t (at)
returning alert_id
"""
_JOB = """
with event as (
  insert into alert_events (tenant_id, alert_id, kind, occurred_at, trace_id)
  values ($1, $2, 'opened', now(), $5) returning *
)
insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload, state, trace_id, finished_at,
  lease_until, leased_by)
select $1, event_id, $2, $3, 'opened', '{}', $4::text, $5, case when $4 in ('dead', 'delivered') then now() end,
  case when $4 = 'leased' then now() end, case when $4 = 'leased' then 'w' end
from event
"""


@pytest.fixture
def lists(api: Api) -> list[Listed]:
    """Every GET that takes a limit or a place to go on from."""
    found = []
    for path, methods in create_api(api.backend).openapi()["paths"].items():
        described = methods.get("get", {})
        parameters = {one["name"]: one["schema"] for one in described.get("parameters", ()) if one["in"] == "query"}
        if parameters:
            found.append(Listed(path, parameters, "text/event-stream" in str(described["responses"]["200"])))
    assert len(found) >= 9
    return found


def _time(field: str, *, until: bool) -> tuple[Callable[[Item], Any], Callable[[Item, Any], bool]]:
    def is_chosen(item: Item, value: Any) -> bool:
        at, bound = datetime.fromisoformat(item[field]), datetime.fromisoformat(value)
        return at < bound if until else at >= bound

    return (lambda item: [item[field]]), is_chosen


# Filters that do not compare the member of the same name, with their values and comparison.
OTHERS: dict[tuple[str, str], tuple[Callable[[Item], Any], Callable[[Item, Any], bool]]] = {
    ("/api/v1/devices", "tag"): (lambda item: item["tags"], lambda item, value: value in item["tags"]),
    ("/api/v1/alerts", "opened_since"): _time("opened_at", until=False),
    ("/api/v1/alerts", "opened_until"): _time("opened_at", until=True),
    ("/api/v1/audit/events", "since"): _time("timestamp", until=False),
    ("/api/v1/audit/events", "until"): _time("timestamp", until=True),
}


def comparing(path: str, name: str) -> tuple[Callable[[Item], Any], Callable[[Item, Any], bool]]:
    """Return the values that an item offers to a filter, and the filter's meaning."""
    same = (lambda item: [] if item[name] is None else [item[name]]), (lambda item, value: item[name] == value)
    return OTHERS.get((path, name), same)


def written(value: Any) -> str:
    """Return a value as a query carries it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


async def read_all(api: Api, path: str, pairs: Sequence[tuple[str, str]] = (), *, limit: int = 200) -> list[Item]:
    """Return every page of a list."""
    items: list[Item] = []
    cursor: str | None = None
    for _ in range(100):
        more: list[tuple[str, str]] = [("cursor", cursor)] if cursor else []
        response = await api.call("GET", f"{path}?{urlencode([*pairs, ('limit', str(limit)), *more])}")
        assert response.status_code == 200, (path, pairs, response.text)
        items += response.json()["items"]
        cursor = response.json()["next_cursor"]
        if cursor is None:
            return items
    raise AssertionError(f"the pages of {path} never end")


@pytest.mark.slow
async def test_each_filter_chooses_the_rows_that_have_its_value(api: Api, lists: list[Listed]) -> None:
    """Every value is tried with pages of one row, then a list of values, then all filters together."""
    tried = 0
    for one in lists:
        if one.tail:
            continue
        whole = await read_all(api, one.path)
        if "order" in one.parameters:
            for limit in (1, 200):
                assert await read_all(api, one.path, [("order", "oldest")], limit=limit) == whole[::-1]
        for name, schema in one.filters.items():
            offered, is_chosen = comparing(one.path, name)
            values = list(dict.fromkeys(value for item in whole for value in offered(item)))
            sizes = set()
            for value in values:
                expected = [item for item in whole if is_chosen(item, value)]
                assert await read_all(api, one.path, [(name, written(value))], limit=1) == expected, (name, value)
                sizes.add(len(expected))
                tried += 1
            assert any(0 < size < len(whole) for size in sizes), f"no rows that tell {one.path}?{name}= from nothing"
            if schema.get("type") == "array":
                expected = [item for item in whole if item[name] in values[:2]]
                assert await read_all(api, one.path, [(name, written(value)) for value in values[:2]]) == expected
        for item in whole:
            offers = {name: next(iter(comparing(one.path, name)[0](item)), None) for name in one.filters}
            together = {n: v for n, v in offers.items() if v is not None and not n.endswith("until")}
            chosen = [other for other in whole if all(comparing(one.path, n)[1](other, v) for n, v in together.items())]
            assert item in chosen
            assert await read_all(api, one.path, [(n, written(v)) for n, v in together.items()]) == chosen
    assert tried > 60


def test_the_tail_takes_the_filters_of_the_list(lists: list[Listed]) -> None:
    by_path = {one.path: one for one in lists}
    assert by_path["/api/v1/audit/tail"].filters == by_path["/api/v1/audit/events"].filters


async def test_the_bounds_of_a_parameter_are_documented_and_hold(api: Api, lists: list[Listed]) -> None:
    """A client generated from the document never sends a number or text that is refused for its size."""

    def keywords(schema: dict[str, Any]) -> set[str]:
        return schema.keys() | {word for part in schema.get("anyOf", ()) for word in keywords(part)}

    tried = 0
    for path, methods in create_api(api.backend).openapi()["paths"].items():
        for described in methods.values():
            for parameter in described.get("parameters", ()):
                assert keywords(parameter["schema"]) <= KEYWORDS, (path, parameter)
    for one in lists:
        for name, schema in one.parameters.items():
            for choice in schema.get("anyOf", [schema]):
                if choice.get("type") != "integer":
                    continue
                for number, status in (
                    *((choice["minimum"], 200), (choice["maximum"], 200)),
                    *((choice["minimum"] - 1, 422), (choice["maximum"] + 1, 422)),
                ):
                    response = await api.call("HEAD" if one.tail else "GET", f"{one.path}?{name}={number}")
                    assert response.status_code == status, (one.path, name, number)
                    tried += 1
    assert tried >= 40


TIMES = (
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-14:00"),
    *("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999999Z", "2026-01-05T12:00:60Z", "2026-02-30T12:00:00Z"),
    *("2026-01-05t12:00:00z", "2026-01-05T24:00:00Z", "0000-01-01T00:00:00Z", "2026-01-05T12:00:00+24:00"),
)
ADDRESSES = ("::1", "fe80::1%eth0", "fe80::1%25", "::ffff:198.51.100.7", "198.51.100.7/32", "1", "0", "2001:DB8::1")
TEXTS = ("", "x", "%", "%_\\'\"--;", "\u202e", "\U0001f600", "\ufffe", "\x01", "\x7f", "\r\n", "null", "x" * 5000)


def extremes(schema: dict[str, Any]) -> Iterator[str]:
    """Yield values at the limits of the schema, and just outside them."""
    for choice in schema.get("anyOf", ()):
        yield from extremes(choice)
    if "items" in schema:
        yield from extremes(schema["items"])
    yield from (str(value) for value in schema.get("enum", ()))
    if schema.get("type") == "integer":
        yield from (str(number) for number in (0, 1, schema.get("maximum", 1), 2**63 - 1, 2**63, 10**18, 10**40))
    if schema.get("type") == "boolean":
        yield from ("true", "false")
    if schema.get("type") == "string":
        yield from {"date-time": TIMES, "ipvanyaddress": ADDRESSES}.get(schema.get("format", ""), ())
        longest = schema.get("maxLength", 1)
        yield from ("a" * longest, "\U0001f600" * longest, "a" * (longest + 1))
    yield from TEXTS


@pytest.mark.slow
async def test_no_value_of_a_parameter_is_a_fault(api: Api, lists: list[Listed]) -> None:
    """Limits of every type and bytes that are not text are accepted or refused."""
    answers: dict[int, int] = {}
    for one in lists:
        method = "HEAD" if one.tail else "GET"
        for name, schema in one.parameters.items():
            raw = [quote(value) for value in dict.fromkeys(extremes(schema))]
            for value in (*raw, "%00", "a%00", "%FF", "%ED%A0%80", f"x&{name}=x"):
                response = await api.call(method, f"{one.path}?{name}={value}")
                assert response.status_code in (200, 422), (one.path, name, value[:80], response.text)
                answers[response.status_code] = answers.get(response.status_code, 0) + 1
    assert min(answers[200], answers[422]) > 100


PLACES: tuple[Any, ...] = (
    *(0, -1, 2**63 - 1, 2**63, 1.5, True, None, [], {}, "", "x", "\ud7ff", "\uffff", "%", "x" * 300),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-05T12:00:00Z", "-infinity", "infinity"),
    *("0", "18446744073709551614", "18446744073709551615", "00000000-0000-0000-0000-000000000000", "{" * 9, "0" * 32),
)


@pytest.mark.slow
async def test_no_cursor_is_a_fault(api: Api, lists: list[Listed]) -> None:
    """Every position of a real cursor is replaced by values of each type and at its limits."""
    tried = 0
    for one in lists:
        if one.tail:
            continue
        page = (await api.call("GET", f"{one.path}?limit=1")).json()
        assert page["next_cursor"], one.path
        parts = orjson.loads(base64.urlsafe_b64decode(page["next_cursor"] + "==="))
        for number in range(len(parts)):
            for place in PLACES:
                text = orjson.dumps([*parts[:number], place, *parts[number + 1 :]] if _fits(place) else str(place))
                cursor = re.sub("=+$", "", base64.urlsafe_b64encode(text).decode())
                paths = [f"{one.path}?cursor={cursor}"]
                if one.path == "/api/v1/audit/events":
                    paths += [f"{one.path}?cursor={cursor}&order=oldest", f"/api/v1/audit/tail?after={cursor}"]
                for path in paths:
                    response = await api.call("HEAD" if "tail" in path else "GET", path)
                    assert response.status_code in (200, 422), (path, place, response.text)
                    tried += 1
    assert tried > 300


def _fits(place: Any) -> bool:
    return type(place) is not int or place < 2**64
