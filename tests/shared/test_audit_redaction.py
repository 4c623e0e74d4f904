"""No token reaches a row, a log line or the spool, from any place where a client puts it."""

import base64
import string
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared.audit import AuditEvent
from services.shared.audit_writer.event import KEY_FILE, AuthEvents, Facts, Pseudonyms, read_key
from services.shared.audit_writer.line import make_line, read_line
from services.shared.db import Actor
from services.ui_iot.auth.authenticator import claimed_account
from services.ui_iot.auth.claims import LONGEST_SUBJECT
from services.ui_iot.auth.device_tokens import DeviceTokens
from tests.support.api_client import open_api, token
from tests.support.bad_values import hostile_text

# Part of every secret, and of no other text.
MARK = "Zq9Xv7Ks3Lm1"
_BASE64 = st.text(string.ascii_letters + string.digits + "-_", max_size=80).map(lambda text: MARK + text)
_TENANT = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=20)


SECRETS = st.one_of(
    st.builds("eyJ{}.eyJ{}.{}".format, _BASE64, _BASE64, _BASE64),
    st.builds("pdt_{}_{}".format, _TENANT, _BASE64),
    st.builds("whsec_{}".format, _BASE64),
    st.builds("Bearer {}".format, _BASE64),
    st.builds("Authorization: Basic {}".format, _BASE64),
    st.builds("Cookie: pulse_session={}; a={}".format, _BASE64, _BASE64),
    st.builds("password={}".format, _BASE64),
    st.builds("https://user:{}@host/x".format, _BASE64),
)

FIELDS = ("message", "tenant_id", "entity_type", "entity_id", "entity_name", "actor_type", "actor_id", "actor_name")
# Next to a word character a token is another word; any other character may precede it.
_BEFORE = hostile_text.map(lambda text: f"{text} ")


@given(secret=SECRETS, before=_BEFORE, after=hostile_text, field=st.sampled_from((*FIELDS, "trace_id", "ip_address")))
@settings(max_examples=400, deadline=None)
def test_no_secret_survives_in_a_field(secret: str, before: str, after: str, field: str) -> None:
    values: dict[str, Any] = {"event_type": "auth.login_failure", "message": "m", field: f"{before}{secret} {after}"}
    line = make_line(AuditEvent(**values), "ui_iot")
    assert MARK not in line


@given(
    secret=SECRETS,
    before=_BEFORE,
    after=hostile_text,
    path=st.lists(st.sampled_from(("list", "mapping", "key")), max_size=4),
)
@settings(max_examples=400, deadline=None)
def test_no_secret_survives_in_details(secret: str, before: str, after: str, path: list[str]) -> None:
    """At any depth, in a value or in a key."""
    value: Any = f"{before}{secret} {after}"
    for step in path:
        match step:
            case "list":
                value = [value]
            case "mapping":
                value = {"seen": value}
            case _:
                value = {f"{before}{secret}": value}
    line = make_line(AuditEvent(event_type="auth.login_failure", message="m", details={"at": value}), "ui_iot")
    assert MARK not in line


@given(claims=st.one_of(hostile_text, st.binary(max_size=60), st.dictionaries(st.just("sub"), st.integers())))
@settings(max_examples=300, deadline=None)
def test_the_account_of_a_hostile_token_never_raises(claims: object) -> None:
    """For any content of the token's second part, and any text in its place."""
    body = claims if isinstance(claims, bytes) else repr(claims).encode("utf-8", "surrogatepass")
    encoded = base64.urlsafe_b64encode(body).decode()
    for text in (f"a.{encoded}.b", f"a.{body.decode('latin-1')}.b", f"..{encoded}", encoded, "pdt_" + encoded):
        found = claimed_account(text)
        assert found is None or len(found) <= LONGEST_SUBJECT + 20


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"sub": "alice"}, "alice"),
        ({"sub": "a" * LONGEST_SUBJECT}, "a" * LONGEST_SUBJECT),
        ({"sub": "a" * (LONGEST_SUBJECT + 1)}, None),
        ({"sub": ""}, None),
        ({"sub": ["alice"]}, None),
        ({}, None),
        (["sub"], None),
    ],
)
def test_the_account_that_a_token_names_is_text_of_a_bounded_length(payload: object, expected: str | None) -> None:
    encoded = base64.urlsafe_b64encode(orjson.dumps(payload)).rstrip(b"=").decode()
    assert claimed_account(f"eyJ.{encoded}.x") == expected
    assert claimed_account(f"eyJ.{encoded}.{'x' * 33_000}") is None


def test_a_pseudonym_depends_on_key_and_name_only(tmp_path: Path) -> None:
    one, other = Pseudonyms(b"k" * 32), Pseudonyms(b"o" * 32)
    assert one.of("alice") == one.of("alice") != other.of("alice") != one.of("bob")
    assert len(one.of("\ud800")) == len("acct_") + 32
    file = tmp_path / "secrets" / KEY_FILE
    key = read_key(file)
    assert key == read_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    assert read_key(Path("/dev/null/key")) != read_key(Path("/dev/null/key"))
    file.write_bytes(b"short")
    assert read_key(file) != b"short"


@given(name=st.text(min_size=4, max_size=40).filter(str.isprintable))
@settings(max_examples=100, deadline=None)
def test_a_claimed_name_is_in_no_column(name: str) -> None:
    """Verified names are kept, claimed names are not."""
    auth = AuthEvents(Pseudonyms(b"k" * 32).of)
    facts = Facts(account=f"<{name}>", ip_address="10.1.2.3", details={"method": "GET", "path": "/"})
    row = read_line(make_line(auth.failure(reason="expired", **facts), "ui_iot"))
    assert not [value for value in row.values() if value is not None and f"<{name}>" in value]
    assert row["actor_id"] is None
    proven = auth.success(actor=Actor("user", f"<{name}>"))
    assert proven.details["account"] == orjson.loads(row["details"] or "")["account"]


async def test_no_token_reaches_a_row_or_a_log_over_http(
    app_url: str, conn: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """In header, cookie, path, query and body, good or bad."""
    caplog.set_level("DEBUG", logger="services")
    good, stale = token(), token(iat=1000, exp=2000)
    device, _ = DeviceTokens.make("acme")
    async with open_api(app_url) as api:
        for text in (good, stale, device):
            for headers in ({"Authorization": f"Bearer {text}"}, {"Cookie": f"pulse_session={text}"}, {}):
                await api.client.get(f"/api/v1/devices/{text}?access_token={text}", headers=headers)
            await api.client.post("/auth/refresh", json={"refresh_token": text})
            await api.client.post("/ingest/v1/readings", json=[{"token": text}], headers={"X-Forwarded-For": text})
    rows = "".join(row[0] for row in await conn.fetch("select a::text from audit_log a"))
    assert len(rows) > 1000
    for text in (good, stale, device):
        parts = [part[:16] for part in text.replace("_", ".").split(".") if len(part) > 16]
        assert parts
        assert [part for part in parts if part in rows] == []
    assert device not in caplog.text
