"""Invisible names, duplicate tags and faulty addresses of channels are refused with the reason."""

import sys
import unicodedata
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.destination import LONGEST_URL, destination_fault, read_url
from services.shared.visible_text import visible_name
from tests.support import seed
from tests.support.api_client import Api
from tests.support.problem import assert_problem

REFUSED = {
    "a\u202eb": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "a\u2066b": "U+2066 LEFT-TO-RIGHT ISOLATE",
    "a\u200bb": "U+200B ZERO WIDTH SPACE",
    "a\u200db": "U+200D ZERO WIDTH JOINER",
    "\ufeffa": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "a\u00adb": "U+00AD SOFT HYPHEN",
    "a\u2060": "U+2060 WORD JOINER",
    "a\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A",
    "a\U000e0100": "U+E0100 VARIATION SELECTOR-17",
    "\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "\ufe0fa": "U+FE0F VARIATION SELECTOR-16",
    "a\ufe00": "U+FE00 VARIATION SELECTOR-1",
    "\u3164": "U+3164 HANGUL FILLER",
    "\u2800": "U+2800 BRAILLE PATTERN BLANK",
    "a\u115fb": "U+115F HANGUL CHOSEONG FILLER",
    "a\u034fb": "U+034F COMBINING GRAPHEME JOINER",
    "a\x00b": "U+0000",
    "a\nb": "U+000A",
    "a\x1bb": "U+001B",
    "a\x85b": "U+0085",
    "a\u2028b": "U+2028 LINE SEPARATOR",
    "a\ue000": "U+E000",
    "a\u0378": "U+0378",
    "a\ud800": "U+D800",
    "a\uffff": "U+FFFF",
}
TAKEN = ["Boiler 1", "Kessel Süd", "ボイラー\u3000一", "غلاية", "दूर", "🔥 hot", "❤️", "a\u00a0b", "#alerts", "x" * 200]


def test_a_refusal_names_the_character() -> None:
    for text, named in REFUSED.items():
        with pytest.raises(ValueError, match="must not contain") as caught:
            visible_name(text)
        assert named in str(caught.value)
    for text in ("\u0301", "\u00a0", "\u3000\u0301"):
        with pytest.raises(ValueError, match="visible character"):
            visible_name(text)


def test_names_of_every_script_are_taken_in_one_spelling() -> None:
    for text in TAKEN:
        assert visible_name(text) == unicodedata.normalize("NFC", text)
    assert visible_name("e\u0301") == "\u00e9"


@given(st.text(min_size=1, max_size=8))
def test_what_is_taken_can_be_seen(text: str) -> None:
    """Every character of a name is a letter, mark, number, sign or space. An accepted name stays as it is."""
    try:
        name = visible_name(text)
    except ValueError:
        return
    assert all(unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for character in name)
    assert visible_name(name) == name


def test_no_format_character_is_taken_anywhere() -> None:
    """The test covers all of Unicode in this Python version."""
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        if unicodedata.category(character) in {"Cc", "Cf", "Cs"}:
            with pytest.raises(ValueError, match=f"U\\+{number:04X}"):
                visible_name(f"a{character}")


async def test_every_name_of_every_resource_is_checked(api: Api, conn: asyncpg.Connection) -> None:
    channel_id = await seed.channel(conn)
    rule_id = await seed.rule(conn)
    alert_id = await conn.fetchval(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " values ('acme', 'f', 'r', 'info', 'm', now()) returning alert_id"
    )
    steps = [{"after_minutes": 1, "channel_id": channel_id}]
    hook = {"kind": "slack", "config": {"url": "https://a.example"}}
    places: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "devices", {"device_id": "d"}, "name"),
        ("POST", "rules", {"metric": "m", "operator": ">", "threshold": 1}, "name"),
        ("POST", "channels", hook, "name"),
        ("POST", "routes", {"channel_id": channel_id}, "name"),
        ("POST", "escalation-policies", {"steps": steps}, "name"),
        ("PATCH", f"rules/{rule_id}", {}, "name"),
        ("PATCH", f"channels/{channel_id}", {}, "name"),
        ("POST", f"alerts/{alert_id}/close", {}, "reason"),
    ]
    for method, path, rest, member in places:
        for text, named in (("a\u202eb", "U+202E RIGHT-TO-LEFT OVERRIDE"), ("a\ud800", "U+D800"), (" \u3000 ", "1")):
            body = orjson.dumps({**rest, member: "?"}).replace(b'"?"', _escaped(text))
            problem = assert_problem(await api.call(method, f"/api/v1/{path}", content=body), 422)
            assert any(named in error["detail"] for error in problem["errors"]), problem
    assert await conn.fetchval("select count(*) from devices") == 0
    made = await api.make("/api/v1/devices", {"device_id": "d", "name": "  Cafe\u0301  "})
    assert made["name"] == "Caf\u00e9"


def _escaped(text: str) -> bytes:
    return b'"' + b"".join(b"\\u%04x" % ord(character) for character in text) + b'"'


async def test_a_tag_is_named_once(api: Api) -> None:
    for tags in (["a", "a"], ["a", "b", "a"]):
        for method, path in (("POST", "/api/v1/devices"), ("PATCH", "/api/v1/devices/d")):
            body = {"tags": tags, **({"device_id": "d"} if method == "POST" else {})}
            problem = assert_problem(await api.call(method, path, json=body), 422)
            assert "names a twice" in problem["errors"][0]["detail"]
    assert (await api.make("/api/v1/devices", {"device_id": "d", "tags": ["a", "A"]}))["tags"] == ["a", "A"]


PRIVATE = "must not point to a private or reserved address"
FAULTS = {
    "https://example..com": "two dots in a row",
    "https://.example.com": "a dot at its beginning",
    "https://example\u3002\u3002com": "two dots in a row",
    "https://example.com./x": "without a dot at its end",
    "https://a.example:0/": "port from 1 to 65535",
    "https://a.example:65536/": "port from 1 to 65535",
    "https://a.example:+80/": "port from 1 to 65535",
    "https://a.example:8_0/": "port from 1 to 65535",
    "https://a.example:\uff18\uff10/": "port from 1 to 65535",
    "https://user:pass@a.example/": "user name or password",
    "https://@a.example/": "user name or password",
    "https://a.example\\@b.example/": "user name or password",
    "https://a.example\\b": "cannot be read",
    "https://%61.example/": "cannot be read",
    "https:///x": "has no host",
    "https://:443/x": "has no host",
    "https:a.example": "must begin with https://",
    "ftp://a.example": "must begin with https://",
    "//a.example": "must begin with https://",
    " https://a.example": "must begin with https://",
    "https://a.example/\u00fc": "percent-encoded ASCII",
    "https://a.example/a b": "percent-encoded ASCII",
    "https://a.example/\r\nHost: b": "percent-encoded ASCII",
    "https://a.example/#x": "fragment",
    "https://1.2.3.256/": "no IPv4 address",
    "https://foo.123/": "no IPv4 address",
    "https://134744072/": "must write the IPv4 address as 8.8.8.8",
    "https://8.8.2056/": "must write the IPv4 address as 8.8.8.8",
    "https://[::1": "cannot be read",
    "https://[1.2.3.4]/": "no IPv6 address",
    "https://[fe80::1%25eth0]/": "no IPv6 address",
    f"https://{'a' * 64}.example/": "longer than 253 characters, or 63",
    f"https://{'a.' * 130}example/": "longer than 253 characters",
    f"https://{chr(0xFC) * 70}.example/": "longer than 253 characters",
    "https://-a.example/": "no host name has",
    "https://a!b.example/": "no host name has",
    "https://xn--a.example/": "internationalized domain name",
    "https://a\u202e.example/": "cannot be read",
    **dict.fromkeys(
        (
            *(
                "https://127.0.0.1/",
                "https://2130706433/",
                "https://0x7f000001/",
                "https://0177.0.0.1/",
                "https://127.1",
            ),
            *("https://0/", "https://10.0.0.1/", "https://0xa9fea9fe/", "https://169.254.169.254/", "https://[::1]/"),
            *("https://[::ffff:10.0.0.1]/", "https://[fd00::1]/", "https://[64:ff9b::a00:1]/", "https://localhost/"),
            *("https://LOCALHOST:8080", "https://a.localhost/", "https://\uff11\uff12\uff17.0.0.1/", "https://[::]/"),
        ),
        PRIVATE,
    ),
}
READ = {
    "HTTPS://Hooks.Example.COM/Path?Q=A": "https://hooks.example.com/Path?Q=A",
    "https://b\u00fccher.example/x": "https://xn--bcher-kva.example/x",
    "https://B\u00dcCHER.example/x": "https://xn--bcher-kva.example/x",
    "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
    "https://a\u3002example/": "https://a.example/",
    "https://a.example:/x": "https://a.example/x",
    "https://a.example:8443": "https://a.example:8443",
    "https://a_b.example?x=1": "https://a_b.example?x=1",
    "https://8.8.8.8/": "https://8.8.8.8/",
    "https://[2606:4700:0::1111]:443/x": "https://[2606:4700::1111]:443/x",
}


def test_an_address_is_refused_with_the_reason() -> None:
    for url, expected in FAULTS.items():
        try:
            fault = destination_fault(read_url(url), allow_private=False)
        except ValueError as error:
            fault = str(error)
        assert fault is not None, url
        assert expected in fault, url


def test_an_address_is_written_in_one_form() -> None:
    for url, expected in READ.items():
        assert read_url(url) == expected
        assert read_url(expected) == expected
        assert destination_fault(expected, allow_private=False) is None


def test_only_loopback_is_let_in_for_the_demo() -> None:
    for url in ("http://127.0.0.1:8087/x", "http://localhost/x", "http://[::1]/x", "https://2130706433/"):
        assert destination_fault(read_url(url), allow_private=True) is None
    for url in ("https://10.0.0.1/", "https://169.254.169.254/", "https://[fe80::1]/"):
        assert destination_fault(read_url(url), allow_private=True) == PRIVATE
    assert destination_fault("http://a.example/", allow_private=True) == "must begin with https://"


@given(st.text(max_size=40).map("https://".__add__) | st.text(max_size=20))
def test_no_text_breaks_the_reading_of_an_address(text: str) -> None:
    """An accepted address is printable ASCII, parses to itself, and has a host that a client can connect to."""
    try:
        url = read_url(text)
    except ValueError:
        return
    assert url.isascii()
    assert url.isprintable()
    assert read_url(url) == url
    assert destination_fault(url, allow_private=False) in (None, PRIVATE, "must begin with https://")


async def test_the_channel_keeps_the_address_in_its_one_form(api: Api, conn: asyncpg.Connection) -> None:
    body = {"name": "c", "kind": "slack", "config": {"url": "HTTPS://Hooks.Example.COM/T0"}}
    made = await api.make("/api/v1/channels", body)
    path = f"/api/v1/channels/{made['channel_id']}"
    query = "select config ->> 'url' from notification_channels"
    assert await conn.fetchval(query) == "https://hooks.example.com/T0"
    moved = await api.call("PATCH", path, json={"config": {"url": "https://B\u00fccher.example/T1"}})
    assert moved.status_code == 200, moved.text
    assert await conn.fetchval(query) == "https://xn--bcher-kva.example/T1"
    for url, expected in FAULTS.items():
        for method, place, whole in (
            ("POST", "/api/v1/channels", {**body, "name": "d", "config": {"url": url}}),
            ("PATCH", path, {"config": {"url": url}}),
        ):
            problem = assert_problem(await api.call(method, place, json=whole), 422)
            explained = problem["detail"] + "".join(error["detail"] for error in problem.get("errors", ()))
            assert expected in explained, url
    long = {**body, "config": {"url": "https://a.example/" + "x" * LONGEST_URL}}
    assert_problem(await api.call("POST", "/api/v1/channels", json=long), 422)
