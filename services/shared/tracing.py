"""The trace a piece of work belongs to: read from headers or rows, kept in a context variable, sent on."""

import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from datetime import UTC, datetime

# W3C Trace Context: version ff and all-zero ids are invalid; a later version may append fields.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_HEX_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", re.ASCII)
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16

# An id whose first 48 bits say another time than this is somebody's random one that has our layout by chance. The SQL
# layer has the same bounds: core.trace_started_at.
_FIRST_MILLISECOND = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000)
_LAST_MILLISECOND = int(datetime(2050, 1, 1, tzinfo=UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One step of one trace: trace_id is 32, span_id 16 lower-case hex digits.

    parent_span_id: the caller's, when its trace is continued.  foreign_trace_id: the caller's trace, when it is not.
    tracestate: what other tracing systems said about the trace, kept as it came.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    foreign_trace_id: str | None = None
    tracestate: str | None = None


_current: ContextVar[TraceContext | None] = ContextVar("pulse_trace", default=None)


def new_trace_id() -> str:
    """A trace id laid out as a UUID of version 7: milliseconds since 1970, then random, the last 7 bytes wholly so."""
    random = secrets.token_hex(10)
    return f"{time.time_ns() // 1_000_000:012x}7{random[:3]}{'89ab'[int(random[3], 16) & 3]}{random[4:19]}"


def trace_time(trace_id: str) -> datetime | None:
    """When the trace began, for an id that carries its time; None for any other."""
    if trace_id[12] != "7" or trace_id[16] not in "89ab":
        return None
    milliseconds = int(trace_id[:12], 16)
    if not _FIRST_MILLISECOND <= milliseconds < _LAST_MILLISECOND:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def span_id_of(trace_id: str, kind: str, node_id: object) -> str:
    """The span id of what is a row, the same wherever it is asked for; core.span_id is its twin in SQL."""
    return hashlib.sha256(f"{trace_id}:{kind}:{node_id}".encode()).hexdigest()[:16]


def new_span_id() -> str:
    """A random span id."""
    return secrets.token_hex(8)


def parse_trace_id(value: str | None) -> str | None:
    """The trace id in 32 lower-case hex digits or a UUID, else None."""
    if value is None:
        return None
    if _UUID.fullmatch(value):
        value = value.replace("-", "").lower()
    return value if _HEX_TRACE_ID.fullmatch(value) and value != _NO_TRACE else None


def parse_traceparent(value: str | None) -> str | None:
    """The trace id of a valid W3C traceparent header, else None."""
    match = _TRACEPARENT.fullmatch(value) if value is not None else None
    if match is None:
        return None
    version, trace_id, parent_id, _flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    return trace_id


def from_headers(traceparent: str | None, x_trace_id: str | None) -> TraceContext:
    """Continue the caller's trace: traceparent first, then X-Trace-ID; start a new one when neither is valid."""
    trace_id = parse_traceparent(traceparent) or parse_trace_id(x_trace_id) or new_trace_id()
    return TraceContext(trace_id, new_span_id())


def format_traceparent(context: TraceContext) -> str:
    """The header that hands the context to the next service, marked as sampled: every trace is stored."""
    return f"00-{context.trace_id}-{context.span_id}-01"


def current() -> TraceContext | None:
    """The context of the running task."""
    return _current.get()


def current_trace_id() -> str | None:
    """The trace id of the running task."""
    context = _current.get()
    return context.trace_id if context else None


def enter(context: TraceContext | None) -> Token[TraceContext | None]:
    """Make the context current; give the token to leave()."""
    return _current.set(context)


def leave(token: Token[TraceContext | None]) -> None:
    """Restore what was current before enter()."""
    _current.reset(token)


@contextmanager
def use(context: TraceContext) -> Iterator[TraceContext]:
    """Run a block within the context."""
    token = enter(context)
    try:
        yield context
    finally:
        leave(token)


@contextmanager
def use_trace_id(trace_id: str | None) -> Iterator[TraceContext]:
    """Run a block as a new step of the row's trace; of a new trace when the row has none."""
    with use(TraceContext(parse_trace_id(trace_id) or new_trace_id(), new_span_id())) as context:
        yield context
