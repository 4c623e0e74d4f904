"""Compares what the client was told with what is on record. Pure: everything it looks at is given to it.

A request that was answered has each event that the answer vouches for exactly once. One that was not has each event
that it may have caused once or not at all. A refused login may be missing only when neither database nor disk took it,
and then an audit.gap row counts it, with time bounds that hold it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from tests.chaos.journal import DENIED, REFUSALS, Request

# A refusal that was decided just before the disk had room again may be answered as late as this.
BLOCKED_SLACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept. what: a word for the summary; evidence: where to look."""

    what: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, in seconds since 1970."""

    first: float
    last: float

    def meets(self, request: Request) -> bool:
        """Return whether the request was in hand at some moment of it."""
        return request.sent_at <= self.last and (request.answered_at or math.inf) >= self.first


@dataclass(slots=True)
class Gap:
    """An audit.gap row. is_exact: a living process counted, and not a ledger that a dead one left, or damage."""

    event_id: str
    count: int
    window: Window
    is_exact: bool

    @classmethod
    def read(cls, event_id: str, details: Mapping[str, Any]) -> Self:
        """Read it from the row's details."""
        first, last = (
            _seconds(details.get(name), default) for name, default in (("first_at", -math.inf), ("last_at", math.inf))
        )
        is_exact = "by_buffer" not in details and not details.get("at_least")
        return cls(event_id, int(details["count"]), Window(first, last), is_exact)


Stored = Mapping[tuple[str, str], int]
"""Rows of audit_log by trace id and event type."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found. acknowledged: events that answers vouched for; lost: those of them that gap rows stand for."""

    acknowledged: int
    lost: int
    broken: Sequence[Broken]


def judge(
    requests: Mapping[str, Request],
    stored: Stored,
    gaps: Sequence[Gap],
    *,
    blocked: Sequence[Window],
    database_seconds: float,
) -> Judgement:
    """Judge a whole run. blocked: when the disk was full; database_seconds: the setting of the run."""
    broken = [*_find_strayed(requests.values()), *_find_doubles(requests.values(), stored)]
    promised = [(request, event_type) for request in requests.values() for event_type in request.promised]
    lost: list[Request] = []
    for request, event_type in promised:
        if (request.stored_as, event_type) in stored:
            continue
        if event_type in REFUSALS:
            lost.append(request)
        else:
            broken.append(Broken("acknowledged event missing", _name(request, event_type)))
    broken += [
        Broken("refusal lost while it could have been kept", _name(request))
        for request in lost
        if not any(_later(window).meets(request) for window in blocked)
    ]
    denied = [one for one in requests.values() if one.reason == DENIED and not _is_stored(one, stored)]
    broken += _find_uncovered([*lost, *denied], gaps)
    broken += _find_invented(requests.values(), stored, gaps, database_seconds=database_seconds)
    return Judgement(len(promised), len(lost), broken)


def _find_strayed(requests: Iterable[Request]) -> Iterable[Broken]:
    """Requests that the API put into another trace than the caller's."""
    for request in requests:
        if request.stored_as != request.trace_id:
            yield Broken("trace not continued", f"{_name(request)}, in trace {request.stored_as}")


def _find_doubles(requests: Iterable[Request], stored: Stored) -> Iterable[Broken]:
    by_trace = {request.stored_as: request for request in requests}
    for (trace_id, event_type), count in stored.items():
        request = by_trace.get(trace_id)
        if request is None:
            continue
        if event_type not in request.possible:
            yield Broken("event that nobody caused", _name(request, event_type))
        elif count > 1:
            yield Broken("event stored twice", _name(request, event_type))


def _find_uncovered(lost: Sequence[Request], gaps: Sequence[Gap]) -> Iterable[Broken]:
    """Losses that no gap row stands for. Gaps that end first take first, each those that were answered first."""
    waiting = sorted(lost, key=lambda request: request.answered_at or math.inf)
    for gap in sorted(gaps, key=lambda gap: gap.window.last):
        taken = {request.trace_id for request in [one for one in waiting if gap.window.meets(one)][: gap.count]}
        waiting = [request for request in waiting if request.trace_id not in taken]
    return [Broken("loss without a gap row", _name(request)) for request in waiting]


def _find_invented(
    requests: Iterable[Request], stored: Stored, gaps: Sequence[Gap], *, database_seconds: float
) -> Iterable[Broken]:
    """Exact gap rows that count more than can have been lost in their time.

    A row whose transaction was cut off may be stored all the same: a request that took longer than the database was
    given may have been counted as lost and be on record.
    """
    doubtful = [
        one
        for one in requests
        if not _is_stored(one, stored) or (one.answered_at or math.inf) - one.sent_at >= database_seconds
    ]
    for gap in gaps:
        most = sum(gap.window.meets(request) for request in doubtful)
        if gap.is_exact and gap.count > most:
            yield Broken(
                "gap row counts too much", f"audit.gap {gap.event_id} says {gap.count}, at most {most} were lost"
            )
    counted = sum(gap.count for gap in gaps if gap.is_exact)
    if counted > len(doubtful):
        yield Broken("gap rows count too much", f"{counted} in all, at most {len(doubtful)} were lost")


def _is_stored(request: Request, stored: Stored) -> bool:
    """Return whether what became of the caller is on record."""
    return any(
        (request.stored_as, event_type) in stored for event_type in request.possible if event_type.startswith("auth.")
    )


def _later(window: Window) -> Window:
    return Window(window.first, window.last + BLOCKED_SLACK_SECONDS)


def _seconds(time: object, default: float) -> float:
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else default


def _name(request: Request, event_type: str = "") -> str:
    answer = request.outcome if request.answered_at is None else f"{request.outcome} at {_clock(request.answered_at)}"
    return f"trace {request.trace_id} {event_type or request.act}, sent {_clock(request.sent_at)}, {answer}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S.%f")[:-3]


def count_outcomes(requests: Iterable[Request]) -> Counter[str]:
    """Count the requests by how they ended."""
    return Counter(request.outcome for request in requests)
