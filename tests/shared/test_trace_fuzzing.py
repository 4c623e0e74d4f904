"""For any request and any logged value, each line is one short JSON object with a valid trace id.

PULSE_TEST_FUZZED_HEADERS sets the number of header values; 1,000,000 take about five minutes.
"""

import asyncio
import logging
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from typing import Any, NoReturn

import orjson
from starlette.types import Message, Receive, Scope, Send

from services.shared.logging import JsonFormatter
from services.shared.metrics import ProcessMetrics
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.middleware.trace import TraceMiddleware

VALUES = int(os.environ.get("PULSE_TEST_FUZZED_HEADERS", "5000"))
SEED = 20240328
VALID = (
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"4bf92f3577b34da6a3ce929d0e0e4736",
    b"4BF92F35-77B3-4DA6-A3CE-929D0E0E4736",
    b"0190163d-8694-739b-aea5-966c26f8ad91",
    b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
)
ALPHABETS = (bytes(range(256)), b"0123456789abcdef-", b'{}[]"\\\n\r\t,:', b"\x00\xff\xed\xa0\x80", b" \t=,@")
NAMES = (b"traceparent", b"traceparent", b"x-trace-id", b"x-trace-id", b"tracestate", b"baggage", b"user-agent")


def value(chance: random.Random) -> bytes:
    """Return a valid value, one with a few bytes changed, or bytes of one of the alphabets, sometimes very many."""
    form = chance.random()
    if form < 0.1:
        return chance.choice(VALID)
    if form < 0.7:
        changed = bytearray(chance.choice(VALID))
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(changed) + 1)
            changed[place : place + chance.randrange(3)] = bytes(
                chance.choices(chance.choice(ALPHABETS), k=chance.randrange(3))
            )
        return bytes(changed)
    length = chance.choice((0, 1, 16, 32, 36, 55, 60, 200)) if form < 0.99 else 30_000
    return bytes(chance.choices(chance.choice(ALPHABETS), k=length))


class Failing:
    """An object whose str() and repr() fail."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("no")

    __repr__ = __str__


class Nowhere(tzinfo):
    """A time zone that fails."""

    def utcoffset(self, _when: datetime | None) -> NoReturn:
        """Fail."""
        raise RuntimeError("no")

    tzname = dst = utcoffset


class Endless(str):
    """Text that never gets shorter."""

    __slots__ = ()

    def __getitem__(self, _key: Any) -> "Endless":
        return self

    def __str__(self) -> str:
        return self


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NESTED = nested(2000)

# Values that a careless caller may log next to a header's text.
EXTRAS: tuple[Callable[[str], Any], ...] = (
    lambda text: text,
    lambda text: text.encode("latin-1"),
    lambda text: {"trace_id": text, text: {"trace_id": text}, 1: text},
    lambda text: text + "\ud800",
    lambda text: "\ud800" + "\U0001f600" * 3000 + text,
    lambda _text: float("nan"),
    lambda _text: 2**200,
    lambda _text: NESTED,
    lambda text: [text] * 500,
    lambda _text: Failing(),
    lambda _text: {"a": [Failing()]},
    lambda _text: datetime(2026, 1, 5, tzinfo=Nowhere()),
    lambda text: Endless(text * 300),
    lambda text: {Endless(text): Endless("x" * 9000)},
    ValueError,
    lambda _text: object,
)


@contextmanager
def lines() -> Iterator[list[str]]:
    """Yield the list of lines written meanwhile, in a process's format."""
    written: list[str] = []
    formatter = JsonFormatter("ui_iot")

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(formatter.format(record))

    keep, logger = Keep(), logging.getLogger("services.ui_iot")
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield written
    finally:
        logger.removeHandler(keep)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


async def careless(scope: Scope, _receive: Receive, send: Send) -> None:
    """Logs the request's headers under reserved names, and fails at times."""
    log = logging.getLogger("services.ui_iot.careless")
    chance = scope["chance"]
    for _name, raw in scope["headers"]:
        text = raw.decode("latin-1")
        # The worst values are long, so only one line in ten has one.
        odd = chance.choice(EXTRAS)(text) if chance.random() < 0.1 else text
        forged = {"trace_id": text, "span_id": odd, "trace_flags": text, "service": odd, "timestamp": 0, "level": text}
        log.info(chance.choice(("%s", "%d", text, "a %s %s")), odd, extra={**forged, "odd": odd, text: odd})
    if chance.random() < 0.05:
        error = RuntimeError(chance.choice(EXTRAS)("x"))
        log.error("failed", exc_info=error, extra={"exception": chance.choice(EXTRAS)("forged")})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_every_line_is_one_short_object_with_a_valid_trace_id() -> None:
    """Refused values are in no line of ours."""
    chance = random.Random(SEED)
    app = TraceMiddleware(
        careless, metrics=ProcessMetrics("ui_iot"), templates=PathTemplates([]), unmeasured=frozenset()
    )
    trace_id, span_id = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def run() -> None:
        tried = 0
        while tried < VALUES:
            headers = [(chance.choice(NAMES), value(chance)) for _ in range(chance.randrange(1, 5))]
            tried += len(headers)
            sent: list[Message] = []

            async def send(message: Message, sent: list[Message] = sent) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "GET", "path": "/x", "headers": headers, "chance": chance}
            await app(scope, receive, send)
            found = dict(sent[0]["headers"])[b"x-trace-id"].decode()
            assert trace_id.fullmatch(found)
            assert found != "0" * 32
            assert written
            for text in written:
                assert "\n" not in text
                assert "\r" not in text
                assert len(text.encode()) < 8192
                line = orjson.loads(text)
                assert line["trace_id"] == found, headers
                assert span_id.fullmatch(line["span_id"])
                assert line["trace_flags"] in ("01", "03")
                assert (line["service"], line["level"] in ("info", "error")) == ("ui_iot", True)
            own = orjson.loads(written[-1])
            assert own["logger"] == "services.ui_iot.middleware.http_meter"
            del own["trace_id"]
            refused = [raw.decode("latin-1") for _name, raw in headers if len(raw) >= 16]
            assert not any(text in str(value) for text in refused for value in own.values())
            written.clear()

    with lines() as written:
        asyncio.run(run())
