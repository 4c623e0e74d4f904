"""The trace of a piece of work: read from headers or rows, kept in a context variable, and sent on.

Headers are those of W3C Trace Context, level 2: https://www.w3.org/TR/trace-context-2/
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import NamedTuple

# The value of a header may have white space around it, and later versions may append fields.
_TRACEPARENT = re.compile(rb"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?[ \t]*")
_HEX_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", re.ASCII)
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16

# Level 2 allows @ anywhere in a key. Level 1 and the public test suite allow it only between tenant and system.
_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z0-9][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32
# Valid members can be longer only because of padding, so a longer header need not be read.
_LONGEST_TRACESTATE_READ = _MOST_MEMBERS * 520
_LONGEST_TRACESTATE_SENT = 512
_LONG_MEMBER = 128

# Every trace is stored, so every context is sampled. The second bit says that the last 7 bytes of the id are random.
SAMPLED = "01"
SAMPLED_RANDOM = "03"

# The version digit of our trace ids and 12 fixed bits after it. One in 64 random ids is a UUID of version 7 by chance,
# so the version alone does not prove that 48 bits are a time. core.trace_started_at has the same mark and bounds.
_MARK = "7bea"
_FIRST_MILLISECOND = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000)
_LAST_MILLISECOND = int(datetime(2050, 1, 1, tzinfo=UTC).timestamp() * 1000)
# Tolerance for a caller's clock. The rows of an id further ahead would be older than the id, and searches miss them.
_MOST_MILLISECONDS_AHEAD = 5 * 60 * 1000
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class TraceContext(NamedTuple):
    """One step of one trace: trace_id is 32, span_id 16 lower-case hex digits.

    parent_span_id: the caller's span if its trace is continued.  foreign_trace_id: the caller's trace if it is not.
    tracestate: the entries of other tracing systems.  is_call: the step is one outgoing request.

    A named tuple, because each request makes one and a frozen dataclass costs 1 µs more.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    foreign_trace_id: str | None = None
    tracestate: str | None = None
    flags: str = SAMPLED
    is_call: bool = False


_current: ContextVar[TraceContext | None] = ContextVar("pulse_trace", default=None)


def new_trace_id() -> str:
    """Return a new UUID of version 7 in hex: milliseconds since 1970, our mark, then 62 random bits."""
    return _trace_id(os.urandom(8).hex())


def _trace_id(random: str) -> str:
    return f"{time.time_ns() // 1_000_000:012x}{_MARK}{_VARIANT[random[0]]}{random[1:16]}"


def new_span_id() -> str:
    """Return a random span id."""
    return os.urandom(8).hex()


def start(foreign_trace_id: str | None = None) -> TraceContext:
    """Return the first step of a new trace."""
    random = os.urandom(16).hex()  # one call for both ids, because the call costs more than the bytes
    return TraceContext(_trace_id(random), random[16:], None, foreign_trace_id, None, SAMPLED_RANDOM)


def carries_time(trace_id: str) -> bool:
    """Return whether the id has our layout, in which the first 48 bits are its time."""
    return _milliseconds(trace_id) is not None


def _milliseconds(trace_id: str) -> int | None:
    if trace_id[12:16] != _MARK or trace_id[16] not in "89ab":
        return None
    milliseconds = int(trace_id[:12], 16)
    return milliseconds if _FIRST_MILLISECOND <= milliseconds < _LAST_MILLISECOND else None


def span_id_of(trace_id: str, kind: str, node_id: object) -> str:
    """Return the span id of a row. core.span_id computes the same in SQL."""
    return hashlib.sha256(f"{trace_id}:{kind}:{node_id}".encode()).hexdigest()[:16]


def parse_trace_id(value: str | None) -> str | None:
    """Return the trace id in 32 lower-case hex digits or a UUID, else None."""
    if value is None:
        return None
    if _UUID.fullmatch(value):
        value = value.replace("-", "").lower()
    return value if _HEX_TRACE_ID.fullmatch(value) and value != _NO_TRACE else None


def parse_traceparent(value: bytes) -> tuple[str, str, str] | None:
    """Return trace id, parent span id and our flags of a valid traceparent header, else None."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more):
        return None
    trace, parent = trace_id.decode(), parent_id.decode()
    if trace == _NO_TRACE or parent == _NO_SPAN:
        return None
    return trace, parent, SAMPLED_RANDOM if int(flags, 16) & 2 else SAMPLED


def parse_tracestate(values: Sequence[bytes]) -> str | None:
    """Return the members of all tracestate headers as one value, or None without members or with an invalid one."""
    combined = b",".join(values)
    if len(combined) > _LONGEST_TRACESTATE_READ:
        return None
    members: dict[str, str] = {}
    for part in combined.decode("latin-1").split(","):
        member = part.strip(" \t")
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None or match[1] in members or len(members) == _MOST_MEMBERS:
            return None
        members[match[1]] = member
    return _fit(list(members.values())) or None


def _fit(members: list[str]) -> str:
    """Return as many whole members as may be sent on. Long members are dropped first, then the last ones."""
    while len(",".join(members)) > _LONGEST_TRACESTATE_SENT:
        members.remove(next((member for member in reversed(members) if len(member) > _LONG_MEMBER), members[-1]))
    return ",".join(members)


def from_headers(headers: Iterable[tuple[bytes, bytes]], *, trust: bool = True) -> TraceContext:
    """Return the context of a request from its headers, whose names are in lower case.

    traceparent is preferred to X-Trace-ID. Without a valid header a new trace starts. A trace is also not continued if
    trust is False or if its id has our mark and a time ahead; it is then the foreign trace of the context.
    """
    parents: list[bytes] = []
    states: list[bytes] = []
    x_trace_id: bytes | None = None
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
        elif name == b"x-trace-id" and x_trace_id is None:
            x_trace_id = value
    # Several traceparents count as none, because the parent is ambiguous.
    parent = parse_traceparent(parents[0]) if len(parents) == 1 else None
    if parent is not None:
        trace_id, parent_span_id, flags = parent
        if trust and not _is_ahead(trace_id):
            state = parse_tracestate(states) if states else None
            return TraceContext(trace_id, new_span_id(), parent_span_id, None, state, flags)
        return start(trace_id)
    known = None if x_trace_id is None else parse_trace_id(x_trace_id.decode("latin-1"))
    return continued(known) if known is not None and trust and not _is_ahead(known) else start(known)


def _is_ahead(trace_id: str) -> bool:
    milliseconds = _milliseconds(trace_id)
    return milliseconds is not None and milliseconds > time.time() * 1000 + _MOST_MILLISECONDS_AHEAD


def continued(trace_id: str) -> TraceContext:
    """Return a new step of a trace that is known by its id only, as in rows. The flags follow from its layout."""
    return TraceContext(trace_id, new_span_id(), flags=SAMPLED_RANDOM if carries_time(trace_id) else SAMPLED)


def format_traceparent(context: TraceContext) -> str:
    """Return the header that passes the context to the next service."""
    return f"00-{context.trace_id}-{context.span_id}-{context.flags}"


def current() -> TraceContext | None:
    """Return the context of the running task."""
    return _current.get()


def current_trace_id() -> str | None:
    """Return the trace id of the running task."""
    context = _current.get()
    return context.trace_id if context else None


def for_call() -> TraceContext:
    """Return the context of one outgoing request: a child of the current step, or this step if it is a call."""
    context = _current.get()
    if context is None:
        return start()._replace(is_call=True)
    if context.is_call:
        return context
    return context._replace(span_id=new_span_id(), parent_span_id=context.span_id, is_call=True)


def enter(context: TraceContext | None) -> Token[TraceContext | None]:
    """Make the context current, and return the token for leave()."""
    return _current.set(context)


def leave(token: Token[TraceContext | None]) -> None:
    """Restore the context from before enter()."""
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
    """Run a block as a new step of the trace of a row, or of a new trace if the row has none."""
    known = parse_trace_id(trace_id)
    with use(continued(known) if known is not None else start()) as context:
        yield context
