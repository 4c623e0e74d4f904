"""W3C Trace Context, level 2: the header that a service sends for every kind of header that it may receive.

The cases are those of the public test suite at its strictest, as received headers and expected headers.
"""

import string
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from services.shared.http_client import traced_client
from services.shared.metrics import ProcessMetrics
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.middleware.trace import TraceMiddleware
from tests.support.receiver import Receiver

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
PARENT = f"00-{TRACE}-{SPAN}-01"

CONTINUED = (
    PARENT,
    f"00-{TRACE}-{SPAN}-00",
    f"00-{TRACE}-{SPAN}-ff",
    f"cc-{TRACE}-{SPAN}-01",
    f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    f" {PARENT}",
    f"\t{PARENT}",
    f"{PARENT} ",
    f"{PARENT}\t",
    f"\t {PARENT} \t",
)
RESTARTED = (
    "",
    f"{PARENT}.",
    f"{PARENT}-",
    f"{PARENT}-what-the-future-will-be-like",
    f"{PARENT},{PARENT}",
    f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like",
    f"cc-{TRACE}-{SPAN}",
    f"ff-{TRACE}-{SPAN}-01",
    *(f"{version}-{TRACE}-{SPAN}-01" for version in (".0", "0.", "000", "0000", "0", "", "CC")),
    f"00-{'0' * 32}-{SPAN}-01",
    *(f"00-{odd}-{SPAN}-01" for odd in (f".{TRACE[1:]}", f"{TRACE[:-1]}.", f"{TRACE}3", TRACE[:-1], f"{TRACE[:-1]}A")),
    f"00-{TRACE}-{'0' * 16}-01",
    *(f"00-{TRACE}-{odd}-01" for odd in (f".{SPAN[1:]}", f"{SPAN[:-1]}.", f"{SPAN}7", SPAN[:-1], f"{SPAN[:-1]}A")),
    *(f"00-{TRACE}-{SPAN}-{flags}" for flags in (".0", "0.", "001", "1", "", "0A")),
)

LEGAL_KEY = string.ascii_lowercase + string.digits + "_-*/"
LEGAL_VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
BARS = [f"bar{number:02}={number:02}" for number in range(1, 34)]
LONG = "l=" + "v" * 200
# Received tracestate headers and the expected one.
STATES: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("foo=1,bar=2",), "foo=1,bar=2"),
    (("",), None),
    (("foo=1", ""), "foo=1"),
    (("", "foo=1"), "foo=1"),
    ((",foo=1, ,\t,bar=2,",), "foo=1,bar=2"),
    (("foo=1,bar=2", "rojo=1,congo=2", "baz=3"), "foo=1,bar=2,rojo=1,congo=2,baz=3"),
    (("foo=1,foo=1",), None),
    (("foo=1,foo=2",), None),
    (("foo=1", "foo=1"), None),
    (("foo=1", "foo=2"), None),
    ((f"{LEGAL_KEY}={LEGAL_VALUE}",), f"{LEGAL_KEY}={LEGAL_VALUE}"),
    ((f"{LEGAL_KEY}@a-z0-9_-*/={LEGAL_VALUE}",), f"{LEGAL_KEY}@a-z0-9_-*/={LEGAL_VALUE}"),
    (("foo=1 \t , \t bar=2, \t baz=3",), "foo=1,bar=2,baz=3"),
    (("foo=1\t \t,\t \tbar=2,\t \tbaz=3",), "foo=1,bar=2,baz=3"),
    *(((padded,), "foo=1") for padded in (" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t")),
    (("foo= 1",), "foo= 1"),
    *(((f"{key}=1,bar=2",), None) for key in ("foo ", "FOO", "foo.bar", "-foo", "", "f\xf6")),
    *(((f"{key}=1,bar=2",), None) for key in ("foo@", "@foo", "foo@@bar", "foo@bar@baz", "foo@-bar")),
    (("1a=1,0@1=2",), "1a=1,0@1=2"),
    (tuple(",".join(BARS[start : start + 8]) for start in range(0, 32, 8)), ",".join(BARS[:32])),
    ((",".join(BARS[:30]), ",".join(BARS[30:])), None),
    (("foo=1", f"{'z' * 256}=1"), f"foo=1,{'z' * 256}=1"),
    (("foo=1", f"{'z' * 257}=1"), None),
    (("foo=1", f"{'t' * 241}@{'v' * 14}=1"), f"foo=1,{'t' * 241}@{'v' * 14}=1"),
    (("foo=1", f"{'t' * 242}@v=1"), None),
    (("foo=1", f"t@{'v' * 15}=1"), None),
    *(((f"foo={value},bar=3",), None) for value in ("bar=baz", "", "a\x00b", "a\tb", "\xfc", "v" * 257)),
    ((f"foo={'v' * 256}",), f"foo={'v' * 256}"),
    # More than 512 characters: whole members go, long ones first, then the last.
    ((f"{LONG},foo=1,m{LONG},bar=2,n{LONG},baz=3",), f"{LONG},foo=1,m{LONG},bar=2,baz=3"),
    ((",".join(f"k{number}=" + "v" * 100 for number in range(6)),), ",".join(f"k{n}=" + "v" * 100 for n in range(4))),
    ((f"foo=1,{' ' * 20_000}bar=2",), None),
)


@dataclass(frozen=True)
class Harness:
    """A service that calls back, and the one it calls."""

    client: httpx.AsyncClient
    receiver: Receiver

    async def sent_on(self, *headers: tuple[str, str], calls: int = 1) -> list[tuple[list[str], str | None]]:
        """Return the fields of traceparent and the tracestate that each call of the service carried."""
        self.receiver.requests.clear()
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        await self.client.get(f"http://service.test/{calls}", headers=raw)
        assert len(self.receiver.requests) == calls
        return [
            (str(request.header("traceparent")).split("-"), request.header("tracestate"))
            for request in self.receiver.requests
        ]


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with Receiver() as receiver, traced_client(trusted=True) as out:

        async def service(scope: Scope, _receive: Receive, send: Send) -> None:
            for _ in range(int(scope["path"][1:])):
                await out.post(receiver.url)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        app = TraceMiddleware(
            service, metrics=ProcessMetrics("ui_iot"), templates=PathTemplates([]), unmeasured=frozenset()
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            yield Harness(client, receiver)


async def test_traceparent(harness: Harness) -> None:
    """Continued with our own span if valid, restarted if not, well-formed in any case."""
    cases: list[tuple[list[tuple[str, str]], bool]] = [
        ([], False),
        *(([("traceparent", value)], True) for value in CONTINUED),
        *(([("traceparent", value)], False) for value in RESTARTED),
        *(([(name, PARENT)], True) for name in ("TraceParent", "TrAcEpArEnT", "TRACEPARENT")),
        *(([(name, PARENT)], False) for name in ("trace-parent", "trace.parent")),
        ([("traceparent", PARENT), ("traceparent", PARENT)], False),
        ([("traceparent", PARENT), ("TraceParent", PARENT.replace("12", "21"))], False),
    ]
    for headers, is_continued in cases:
        [(fields, state)] = await harness.sent_on(*headers, ("tracestate", "foo=1"))
        assert [len(field) for field in fields] == [2, 32, 16, 2], headers
        assert fields[0] == "00"
        assert set("".join(fields)) <= set(string.hexdigits.lower())
        assert "0" * 32 != fields[1] != "0" * 16 != fields[2] != SPAN
        assert (fields[1] == TRACE) is is_continued, headers
        assert state == ("foo=1" if is_continued else None), headers
        random = not headers or not is_continued or str(headers[0][1]).strip().split("-")[3] == "ff"
        assert fields[3] == ("03" if random else "01"), headers


async def test_tracestate(harness: Harness) -> None:
    """Order is kept across headers; one bad member drops the whole tracestate but not the traceparent."""
    for values, expected in STATES:
        headers = [("tracestate", value) for value in values]
        [(fields, state)] = await harness.sent_on(("traceparent", PARENT), *headers)
        assert (fields[1], state) == (TRACE, expected), values
        [(fields, state)] = await harness.sent_on(*headers)
        assert (fields[1] == TRACE, state) == (False, None), values
    for name in ("TraceState", "TrAcEsTaTe", "TRACESTATE"):
        [(_fields, state)] = await harness.sent_on((name, "foo=1"), ("traceparent", PARENT))
        assert state == "foo=1"
    for name in ("trace-state", "trace.state", "baggage"):
        [(_fields, state)] = await harness.sent_on((name, "foo=1"), ("traceparent", PARENT))
        assert state is None
        assert harness.receiver.requests[0].header(name) is None


@pytest.mark.parametrize("value", [PARENT, None, f"00-{'0' * 32}-{SPAN}-01"])
async def test_every_call_is_a_step_of_its_own(harness: Harness, value: str | None) -> None:
    """All steps belong to the same trace."""
    headers = [] if value is None else [("traceparent", value)]
    fields = [fields for fields, _state in await harness.sent_on(*headers, calls=3)]
    assert len({field[2] for field in fields}) == 3
    [trace_id] = {field[1] for field in fields}
    assert (trace_id == TRACE) is (value == PARENT)
    assert trace_id != "0" * 32
