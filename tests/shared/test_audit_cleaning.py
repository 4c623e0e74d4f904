"""Cleaning of audit events before they are stored: hostile text, secrets, odd values."""

import math
from datetime import datetime
from decimal import Decimal
from ipaddress import IPv6Address
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.audit import AuditEvent
from services.shared.audit_writer import cleaning
from services.shared.audit_writer.line import COLUMNS, SEPARATOR, make_line, read_line
from tests.support.bad_values import hostile_text

hostile_value = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), hostile_text, st.binary(max_size=20), st.decimals()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(hostile_text, inner, max_size=4)),
    max_leaves=10,
)


def event(**values: Any) -> AuditEvent:
    """Return a harmless event except for the given values."""
    return AuditEvent(**{"event_type": "auth.login_success", "message": "caller let in", **values})


def store(**values: Any) -> dict[str, Any]:
    """Return the row that would be stored for such an event, with details decoded."""
    row: dict[str, Any] = read_line(make_line(event(**values), "ui_iot"))
    row["details"] = orjson.loads(row["details"])
    return row


def test_a_harmless_event_is_stored_as_it_is() -> None:
    made = event(
        tenant_id="acme", entity_type="device", entity_id="boiler-1", entity_name="Boiler in Zürich", actor_type="user",
        actor_id="alice@example.com", actor_name="Ålice", details={"path": "/api/v1/alerts", "count": 3, "ok": True},
        ip_address="10.1.2.3", trace_id="ab" * 16, duration_ms=1.5,
    )  # fmt: skip
    row = read_line(make_line(made, "ui_iot"))
    details = orjson.loads(row.pop("details") or "")
    assert datetime.fromisoformat(row.pop("timestamp") or "") == made.timestamp
    assert details == made.details
    assert row == {
        "event_type": "auth.login_success",
        "event_id": str(made.event_id),
        "category": "auth",
        "action": "login_success",
        "severity": "info",
        "source_service": "ui_iot",
        "ip_address": "10.1.2.3",
        "duration_ms": "1.500",
        "tenant_id": "acme",
        "entity_type": "device",
        "entity_id": "boiler-1",
        "entity_name": "Boiler in Zürich",
        "actor_type": "user",
        "actor_id": "alice@example.com",
        "actor_name": "Ålice",
        "trace_id": "ab" * 16,
        "message": "caller let in",
    }


TEXT_FIELDS = (
    "tenant_id", "entity_type", "entity_id", "entity_name", "actor_type", "actor_id", "actor_name", "trace_id",
    "message", "ip_address", "event_type", "severity",
)  # fmt: skip


@given(
    fields=st.fixed_dictionaries({}, optional=dict.fromkeys(TEXT_FIELDS, hostile_text)),
    details=st.dictionaries(hostile_text, hostile_value, max_size=5),
    duration=st.one_of(st.none(), st.floats()),
)
def test_whatever_arrives_becomes_one_storable_line(
    fields: dict[str, str], details: dict[str, Any], duration: float | None
) -> None:
    """One line of nineteen printable values within their limits; details is JSON without a NUL or half a character."""
    line = make_line(event(**fields, details=details, duration_ms=duration), "ui_iot")
    assert line.count(SEPARATOR) == len(COLUMNS) - 1
    assert line.replace(SEPARATOR, "").isprintable()
    line.encode()
    row = read_line(line)
    assert len(row["entity_id"] or "") <= cleaning.LONGEST_NAME
    assert len(row["tenant_id"] or "") in range(1, cleaning.LONGEST_TENANT + 1)
    assert row["message"]
    assert "\\u0000" not in (row["details"] or "").replace("\\\\", "")
    assert isinstance(orjson.loads(row["details"] or ""), dict)
    assert len(row["details"] or "") <= cleaning.LONGEST_DETAILS


TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (f"Bearer {TOKEN}", "Bearer [redacted]"),
        (f"got {TOKEN} and more", "got [redacted] and more"),
        ("pdt_acme_" + "x" * 43, "[redacted]"),
        ("signed with whsec_MDEyMzQ1Njc4OTAx", "signed with [redacted]"),
        ("Basic dXNlcjpwYXNzd29yZA==", "Basic [redacted]"),
        ("POST https://bob:hunter2@example.com/x", "POST https://[redacted]@example.com/x"),
        ("https://hooks.slack.com/services/T0/B0/abc failed", "https://hooks.slack.com/[redacted] failed"),
        ("/callback?access_token=abc123&x=1", "/callback?access_token=[redacted]&x=1"),
        ("Cookie: pulse_session=abc; theme=dark", "Cookie: [redacted]"),
        ("Authorization: Digest username=bob", "Authorization: [redacted]"),
        ("PASSWORD=hunter2", "PASSWORD=[redacted]"),
    ],
)
def test_a_secret_in_a_text_is_not_kept(text: str, cleaned: str) -> None:
    """In every field: message, name, or a value at any depth of details."""
    row = store(message=text, actor_id=text, details={"seen": text, "deep": {"list": [text]}})
    assert row["message"] == cleaned
    assert row["actor_id"] == cleaned
    assert row["details"] == {"seen": cleaned, "deep": {"list": [cleaned]}}


@pytest.mark.parametrize(
    "key", ["password", "access_token", "Set-Cookie", "client_secret", "API_KEY", "routing_key", "key"]
)
def test_a_value_under_a_secrets_name_is_not_kept(key: str) -> None:
    """The key of a value decides; the stored mark may show that a value existed."""
    assert store(details={key: "hunter2"})["details"] == {key: "[redacted]"}
    assert store(details={"headers": {key: ["hunter2"]}})["details"] == {"headers": {key: "[redacted]"}}
    assert store(details={key: True, "other": [None]})["details"] == {key: True, "other": [None]}


@given(prefix=hostile_text, suffix=hostile_text)
def test_a_token_is_found_wherever_it_stands(prefix: str, suffix: str) -> None:
    """No surrounding text hides a token, however long or odd."""
    for field in ("message", "actor_id", "entity_name"):
        line = make_line(event(**{field: f"{prefix} {TOKEN} {suffix}"}), "ui_iot")
        assert TOKEN[:20] not in line
    assert TOKEN[:20] not in make_line(event(details={"x": {"y": f"{prefix} {TOKEN} {suffix}"}}), "ui_iot")


def test_a_token_at_the_cut_is_not_kept() -> None:
    """Text is searched before it is cut, so half a token cannot remain."""
    row = store(actor_id="x" * (cleaning.LONGEST_NAME - 30) + " " + TOKEN)
    assert "eyJ" not in row["actor_id"]
    # Without the at sign, the password does not look like one.
    row = store(actor_id="x" * (cleaning.LONGEST_NAME - 30) + " https://ann:hunter2hunter2hunter2@host")
    assert "hunter2" not in row["actor_id"]


def test_line_breaks_and_bidi_marks_are_shown_not_obeyed() -> None:
    """Characters that could forge a second line or reverse a name are escaped."""
    row = store(message="a\r\nb", actor_name="\u202egpj.exe", entity_name="\ud800")
    assert row["message"] == "a\\u000d\\u000ab"
    assert row["actor_name"] == "\\u202egpj.exe"
    assert row["entity_name"] == "\\ud800"


def test_a_megabyte_is_cut_and_said_to_be() -> None:
    """One enormous value costs neither memory nor a neighbor."""
    row = store(message="m" * 1_000_000, actor_id="a" * 1_000_000, details={"x": "d" * 1_000_000})
    assert len(row["message"]) == cleaning.LONGEST_MESSAGE
    assert len(row["actor_id"]) == cleaning.LONGEST_NAME
    assert len(row["details"]["x"]) == cleaning.LONGEST_TEXT
    many = store(details={str(number): "d" * 1000 for number in range(40)})["details"]
    assert many["truncated_characters"] > 40_000


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (math.nan, "nan"),
        (2**70, hex(2**70)),
        (b"\x00", "b'\\x00'"),
        (Decimal("1.5"), "1.5"),
        ((1, 2), [1, 2]),
        (list(range(60)), [*range(50), "… 10 more"]),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_odd_values_are_stored_as_something(value: object, stored: object) -> None:
    """A value that JSON does not know is described and does not cost the event."""
    assert store(details={"x": value, "y": "\n"})["details"] == {"x": stored, "y": "\\u000a"}


def test_a_value_that_cannot_be_shown_costs_nothing() -> None:
    """Neither an object whose str() fails nor a list that contains itself stops the event."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    loop: list[Any] = []
    loop.append(loop)
    assert store(details={"x": Broken(), "y": loop})["details"] == {"x": "<Broken>", "y": [[[[["…"]]]]]}


@pytest.mark.parametrize(
    ("address", "stored"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        (IPv6Address("2001:db8::1"), "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        (None, None),
    ],
)
def test_addresses_are_normalised(address: str | IPv6Address | None, stored: str | None) -> None:
    """A client has one address in the trail, for every spelling."""
    row = store(ip_address=address)
    assert (row["ip_address"], row["details"]) == (stored, {})


def test_a_bad_address_is_noted_and_left_out() -> None:
    """An invalid address cannot be stored as one, and must not cost the event."""
    row = store(ip_address="10.0.0.1, evil\n")
    assert row["ip_address"] is None
    assert row["details"] == {"invalid_ip_address": "10.0.0.1, evil\\u000a"}


def test_time_and_id_are_fixed_when_the_event_is_made() -> None:
    """A repeated write must send the same row, so id and time must not be made anew."""
    made = event()
    assert make_line(made, "ui_iot") == make_line(made, "ui_iot")
    assert made.event_id.version == 7
    assert abs(int(made.event_id.hex[:12], 16) - made.timestamp.timestamp() * 1000) < 1000
    assert len({event().event_id for _ in range(10_000)}) == 10_000
