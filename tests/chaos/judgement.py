"""Comparison of the responses that the client received with the audit trail, without any I/O.

An answered request has each event that its response promises exactly once. An unanswered one has each event that it may
have caused at most once. A refused login may be missing only if neither database nor disk could store it. Then an
audit.gap row counts it, with time bounds that include it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from tests.chaos.journal import DENIED, REFUSALS, SentRequest

# A refusal that was decided just before the disk had room again may be answered this late.
BLOCKED_SLACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """Promise that was not kept. what: its kind, for the summary; evidence: the case."""

    what: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Window:
    """Period, in seconds since 1970."""

    first: float
    last: float

    def meets(self, request: SentRequest) -> bool:
        """Return whether the request was in progress at some moment of the period."""
        return request.sent_at <= self.last and (request.answered_at or math.inf) >= self.first


@dataclass(slots=True)
class Gap:
    """An audit.gap row. is_exact: its count is of a live process, not of a ledger left by a dead one or of damage."""

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
    """Result. acknowledged: number of events that responses promised; lost: the part that is in gap rows."""

    acknowledged: int
    lost: int
    broken: Sequence[BrokenPromise]


def judge(
    requests: Mapping[str, SentRequest],
    stored: Stored,
    gaps: Sequence[Gap],
    *,
    blocked: Sequence[Window],
    database_seconds: float,
) -> Judgement:
    """Judge a whole run. blocked: periods with a full disk; database_seconds: the setting of the run."""
    broken = [*_find_strayed(requests.values()), *_find_doubles(requests.values(), stored)]
    promised = [(request, event_type) for request in requests.values() for event_type in request.promised]
    lost: list[SentRequest] = []
    for request, event_type in promised:
        if (request.stored_as, event_type) in stored:
            continue
        if event_type in REFUSALS:
            lost.append(request)
        else:
            broken.append(BrokenPromise("acknowledged event missing", _name(request, event_type)))
    broken += [
        BrokenPromise("refusal lost while it could have been kept", _name(request))
        for request in lost
        if not any(_later(window).meets(request) for window in blocked)
    ]
    denied = [one for one in requests.values() if one.reason == DENIED and not _is_stored(one, stored)]
    broken += _find_uncovered([*lost, *denied], gaps)
    broken += _find_invented(requests.values(), stored, gaps, database_seconds=database_seconds)
    return Judgement(len(promised), len(lost), broken)


def _find_strayed(requests: Iterable[SentRequest]) -> Iterable[BrokenPromise]:
    """Yield requests that the API recorded in another trace than the caller's."""
    for request in requests:
        if request.stored_as != request.trace_id:
            yield BrokenPromise("trace not continued", f"{_name(request)}, in trace {request.stored_as}")


def _find_doubles(requests: Iterable[SentRequest], stored: Stored) -> Iterable[BrokenPromise]:
    by_trace = {request.stored_as: request for request in requests}
    for (trace_id, event_type), count in stored.items():
        request = by_trace.get(trace_id)
        if request is None:
            continue
        if event_type not in request.possible:
            yield BrokenPromise("event without a cause", _name(request, event_type))
        elif count > 1:
            yield BrokenPromise("event stored twice", _name(request, event_type))


def _find_uncovered(lost: Sequence[SentRequest], gaps: Sequence[Gap]) -> Iterable[BrokenPromise]:
    """Return losses without a gap row. Gaps are matched by their end, and losses by the time of their response."""
    waiting = sorted(lost, key=lambda request: request.answered_at or math.inf)
    for gap in sorted(gaps, key=lambda gap: gap.window.last):
        taken = {request.trace_id for request in [one for one in waiting if gap.window.meets(one)][: gap.count]}
        waiting = [request for request in waiting if request.trace_id not in taken]
    return [BrokenPromise("loss without a gap row", _name(request)) for request in waiting]


def _find_invented(
    requests: Iterable[SentRequest], stored: Stored, gaps: Sequence[Gap], *, database_seconds: float
) -> Iterable[BrokenPromise]:
    """Yield exact gap rows that count more than was lost in their period.

    A row whose transaction was cut may have been stored. So a request that took longer than the database's time limit
    may be both counted as lost and on record.
    """
    doubtful = [
        one
        for one in requests
        if not _is_stored(one, stored) or (one.answered_at or math.inf) - one.sent_at >= database_seconds
    ]
    for gap in gaps:
        most = sum(gap.window.meets(request) for request in doubtful)
        if gap.is_exact and gap.count > most:
            yield BrokenPromise(
                "gap row counts too much", f"audit.gap {gap.event_id} says {gap.count}, at most {most} were lost"
            )
    counted = sum(gap.count for gap in gaps if gap.is_exact)
    if counted > len(doubtful):
        yield BrokenPromise("gap rows count too much", f"{counted} in all, at most {len(doubtful)} were lost")


def _is_stored(request: SentRequest, stored: Stored) -> bool:
    """Return whether what became of the caller is on record."""
    return any(
        (request.stored_as, event_type) in stored for event_type in request.possible if event_type.startswith("auth.")
    )


def _later(window: Window) -> Window:
    return Window(window.first, window.last + BLOCKED_SLACK_SECONDS)


def _seconds(time: object, default: float) -> float:
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else default


def _name(request: SentRequest, event_type: str = "") -> str:
    answer = request.outcome if request.answered_at is None else f"{request.outcome} at {_clock(request.answered_at)}"
    return f"trace {request.trace_id} {event_type or request.act}, sent {_clock(request.sent_at)}, {answer}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S.%f")[:-3]


def count_outcomes(requests: Iterable[SentRequest]) -> Counter[str]:
    """Count the requests by how they ended."""
    return Counter(request.outcome for request in requests)
