"""Events in OCSF are valid against the public schema, which ocsf-json-schema carries as it is published."""

import functools
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from services.cli.audit import ocsf

AUTH = (
    "auth.login_success",
    "auth.login_failure",
    "auth.forbidden",
    "auth.rate_limited",
    "auth.token_refresh",
    "auth.attack_suspected",
    "auth.api_key_revoked",
)
CAPTIONS = {
    "activity_id": "activity_name",
    "category_uid": "category_name",
    "class_uid": "class_name",
    "type_uid": "type_name",
    "severity_id": "severity",
    "status_id": "status",
    "logon_type_id": "logon_type",
}
ROW: dict[str, Any] = {
    "tenant_id": "acme",
    "timestamp": "2026-01-05T12:00:00.123456+00:00",
    "event_id": "01920000-0000-7000-8000-000000000001",
    "recorded_at": "2026-01-05T12:00:00.2+00:00",
    "event_type": "auth.login_failure",
    "category": "auth",
    "severity": "warning",
    "entity_type": None,
    "entity_id": None,
    "entity_name": None,
    "action": "login_failure",
    "message": "request refused: invalid_token",
    "details": {"reason": "invalid_token", "account": "acct_" + "0" * 32, "method": "GET", "path": "/api/v1/alerts"},
    "source_service": "ui_iot",
    "actor_type": "anonymous",
    "actor_id": None,
    "actor_name": None,
    "ip_address": "203.0.113.7",
    "trace_id": "ab" * 16,
    "duration_ms": 1.5,
}


@functools.cache
def schema() -> OcsfJsonSchemaEmbedded:
    """Return the schema of the version that the events name."""
    return OcsfJsonSchemaEmbedded(published())


@functools.cache
def published() -> dict[str, Any]:
    """Return the schema as it is published."""
    found: dict[str, Any] = get_ocsf_schema(version=ocsf.VERSION)
    return found


@functools.cache
def validator(class_uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    """Return what checks events of a class: required members, types, enumerations, constraints, and nothing unknown."""
    name = schema().lookup_class_name_from_uid(class_uid=class_uid)
    return Draft202012Validator(schema().get_class_schema(class_name=name, profiles=list(profiles)))


def faults(event: dict[str, Any]) -> list[str]:
    """Return what is wrong with an event by the schema; captions beside their numbers are compared too."""
    profiles = tuple(event["metadata"].get("profiles", ()))
    # Through JSON, as a SIEM gets it.
    event = orjson.loads(orjson.dumps(event))
    found = [
        f"{error.json_path}: {error.message}" for error in validator(event["class_uid"], profiles).iter_errors(event)
    ]
    name = schema().lookup_class_name_from_uid(class_uid=event["class_uid"])
    attributes = published()["classes"][name]["attributes"]
    for number, text in CAPTIONS.items():
        if number not in event or (number == "activity_id" and event[number] == 99):
            continue
        caption = attributes[number]["enum"].get(str(event[number]), {}).get("caption")
        if event[text] != caption:
            found.append(f"{text} is {event[text]}, not {caption}")
    return found


def test_the_validator_finds_faults() -> None:
    """Each kind of fault makes an event invalid, so that a pass means something."""
    event = ocsf.to_ocsf(ROW)
    assert faults(event) == []
    wrongs: tuple[dict[str, Any], ...] = (
        {"user": {}},
        {"surprise": 1},
        {"time": "noon"},
        {"status_id": 7},
        {"status": "Fine"},
        {"service": {}},
        {"src_endpoint": {"ip": "localhost"}},
    )
    for wrong in wrongs:
        assert faults({**event, **wrong}) != [], wrong
    for required in ("activity_id", "category_uid", "severity_id", "time", "type_uid", "user"):
        missing = {name: value for name, value in event.items() if name != required}
        assert faults(missing) != [], required


def test_a_refused_login() -> None:
    """Every fact of the row is where an analyst looks for it."""
    event = ocsf.to_ocsf(ROW)
    assert (event["class_uid"], event["type_uid"], event["type_name"]) == (3002, 300201, "Authentication: Logon")
    assert (event["status"], event["status_code"], event["severity"]) == ("Failure", "invalid_token", "Medium")
    assert event["time"] == datetime(2026, 1, 5, 12, 0, 0, 123000, tzinfo=UTC).timestamp() * 1000
    assert event["user"] == {"account": {"uid": "acct_" + "0" * 32}, "type_id": 0, "type": "Unknown"}
    assert event["src_endpoint"] == {"ip": "203.0.113.7"}
    assert event["http_request"] == {"http_method": "GET", "url": {"path": "/api/v1/alerts"}}
    assert event["service"] == {"name": "ui_iot"}
    assert event["duration"] == 2
    assert event["metadata"]["correlation_uid"] == "ab" * 16
    assert (event["metadata"]["tenant_uid"], event["metadata"]["event_code"]) == ("acme", "auth.login_failure")
    assert event["unmapped"]["details"] == ROW["details"]


def test_an_aggregated_row_keeps_its_count() -> None:
    """One event stands for all of its window."""
    details = {
        "aggregated": True,
        "count": 4711,
        "reason": "invalid_token",
        "first_at": "2026-01-05T12:00:00Z",
        "last_at": "2026-01-05T12:00:01Z",
    }
    event = ocsf.to_ocsf({**ROW, "details": details})
    assert faults(event) == []
    assert (event["count"], event["end_time"] - event["start_time"]) == (4711, 1000)


@pytest.mark.parametrize(
    ("event_type", "class_uid", "activity"),
    [
        ("auth.login_success", 3002, "Logon"),
        ("auth.token_refresh", 3002, "Service Ticket Renew"),
        ("auth.attack_suspected", 3002, "Attack Suspected"),
        ("config.channel_created", 3004, "Create"),
        ("config.rule_updated", 3004, "Update"),
        ("rule.deleted", 3004, "Delete"),
        ("config.table_truncated", 3004, "Table Truncated"),
        ("device.created", 3004, "Create"),
        ("audit.read", 6003, "Read"),
        ("delivery.dead", 0, "Dead"),
    ],
)
def test_where_an_event_goes(event_type: str, class_uid: int, activity: str) -> None:
    """Logins, changes and reads have classes of their own; what the schema has no word for is a base event."""
    category, _, action = event_type.partition(".")
    event = ocsf.to_ocsf({**ROW, "event_type": event_type, "category": category, "action": action})
    assert (event["class_uid"], event["activity_name"]) == (class_uid, activity)
    assert faults(event) == []


async def test_every_registered_type_is_valid(conn: asyncpg.Connection) -> None:
    """As the database gives it, with as little in it as it can have; every auth.* is an Authentication."""
    await conn.execute(
        "select audit.write(array(select audit.event('acme', event_type) from audit.event_types));"
        "select audit.write(array(select audit.event('acme', event_type, p_entity_type => 'rule', p_entity_id => '7',"
        " p_entity_name => 'hot', p_actor_type => 'user', p_actor_id => 'alice', p_actor_name => 'Alice',"
        " p_trace_id => repeat('ab', 16), p_ip_address => '2001:db8::1', p_duration_ms => 1.5,"
        """ p_details => '{"reason": "expired", "method": "GET", "path": "/x", "account": "acct_1"}')"""
        " from audit.event_types))"
    )
    rows = [orjson.loads(row[0]) for row in await conn.fetch("select to_jsonb(l) from audit_log l")]
    assert len(rows) == 2 * await conn.fetchval("select count(*) from audit.event_types")
    wrong = {(row["event_type"], fault) for row in rows for fault in faults(ocsf.to_ocsf(row))}
    assert wrong == set()
    auth = {row["event_type"] for row in rows if row["category"] == "auth"}
    assert auth == set(AUTH)
    assert {ocsf.to_ocsf(row)["class_uid"] for row in rows if row["category"] == "auth"} == {3002}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
WORDS = ("reason", "account", "method", "path", "aggregated", "count", "first_at", "last_at")
ROWS = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from(AUTH) | st.from_regex(r"auth\.[a-z_]{1,20}", fullmatch=True),
        "tenant_id": TEXT,
        "timestamp": st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
            datetime.isoformat
        ),
        "recorded_at": st.datetimes(datetime(1970, 1, 2), timezones=st.just(UTC)).map(datetime.isoformat),  # noqa: DTZ001
        "event_id": st.uuids(version=4).map(str),
        "severity": st.sampled_from(("debug", "info", "warning", "error", "critical")),
        "message": TEXT,
        "source_service": TEXT,
        "details": st.dictionaries(st.sampled_from(WORDS), JSON) | st.dictionaries(TEXT, JSON, max_size=3),
        **{
            column: st.none() | TEXT
            for column in ("entity_type", "entity_id", "entity_name", "actor_id", "actor_name", "trace_id")
        },
        "actor_type": st.none() | st.sampled_from(("user", "device", "service", "anonymous")) | TEXT,
        "ip_address": st.none() | st.ip_addresses().map(str),
        "duration_ms": st.none() | st.floats(),
    }
)


@given(ROWS)
def test_every_row_of_auth_is_valid(row: dict[str, Any]) -> None:
    """Any row maps to a valid event, and its details stay unchanged."""
    category, _, action = row["event_type"].partition(".")
    event = ocsf.to_ocsf({**row, "category": category, "action": action})
    assert (event["class_uid"], faults(event)) == (3002, [])
    assert event["unmapped"]["details"] == row["details"]
    assert event["metadata"]["uid"] == row["event_id"]


@given(ROWS, st.sampled_from(["config.rule_updated", "device.created", "rule.deleted", "audit.read", "alert.opened"]))
def test_every_other_row_is_valid(row: dict[str, Any], event_type: str) -> None:
    """The other classes too."""
    category, _, action = event_type.partition(".")
    event = ocsf.to_ocsf({**row, "event_type": event_type, "category": category, "action": action})
    assert faults(event) == []
