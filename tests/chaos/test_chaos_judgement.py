"""Judgement of a chaos run: it finds each broken promise, and reports no promise that was kept."""

import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import orjson
import pytest

from services.shared import tracing
from tests.chaos.config_replay import Change, find_differences
from tests.chaos.faults import KINDS, make_schedule
from tests.chaos.journal import ClientJournal, SentRequest, draw_trace_id
from tests.chaos.judgement import Gap, Judgement, Window, judge

READ = SentRequest("a" * 32, "read", 100.0, 100.1, 200)
CHANGE = SentRequest("b" * 32, "config.rule_created", 101.0, 101.1, 201)
REFUSED = SentRequest("c" * 32, "expired", 102.0, 102.1, 401, "expired")
FORBIDDEN = SentRequest("d" * 32, "forbidden", 103.0, 103.1, 403, "forbidden")
UNHEARD = SentRequest("e" * 32, "config.rule_updated", 104.0)
DENIED = SentRequest("f" * 32, "read", 105.0, 105.1, 503, "audit_unavailable")
AWAY = SentRequest("9" * 32, "read", 106.0, 106.1, 503)
REQUESTS = (READ, CHANGE, REFUSED, FORBIDDEN, UNHEARD, DENIED, AWAY)
STORED = {
    (READ.trace_id, "auth.login_success"): 1,
    (CHANGE.trace_id, "auth.login_success"): 1,
    (CHANGE.trace_id, "config.rule_created"): 1,
    (REFUSED.trace_id, "auth.login_failure"): 1,
    (FORBIDDEN.trace_id, "auth.forbidden"): 1,
    (AWAY.trace_id, "auth.login_success"): 1,
}
ALWAYS = Window(0.0, 1000.0)


def gap(count: int, first: float, last: float, **more: Any) -> Gap:
    """Return a gap row as the writer makes it, with its times as the database gives them back."""
    first_at, last_at = (datetime.fromtimestamp(seconds, UTC).isoformat() for seconds in (first, last))
    return Gap.read("gap", {"count": count, "first_at": first_at, "last_at": last_at, **more})


DENIED_GAP = gap(1, 105.0, 105.05)


def judged(
    *requests: SentRequest,
    stored: Mapping[tuple[str, str], int] = STORED,
    gaps: tuple[Gap, ...] = (DENIED_GAP,),
    blocked: Window = ALWAYS,
) -> Judgement:
    """Return the judgement about these requests, or about all."""
    by_trace = {request.trace_id: request for request in requests or REQUESTS}
    return judge(by_trace, stored, gaps, blocked=[blocked], database_seconds=1.0)


def found(judgement: Judgement) -> list[str]:
    """Return the kinds of broken promises."""
    return [broken.what for broken in judgement.broken]


def without(*keys: tuple[str, str]) -> dict[tuple[str, str], int]:
    """Return the stored rows without these."""
    return {key: count for key, count in STORED.items() if key not in keys}


def test_a_run_that_kept_its_promises_is_clean() -> None:
    judgement = judged()
    assert found(judgement) == []
    assert (judgement.acknowledged, judgement.lost) == (6, 0)


@pytest.mark.parametrize(
    "key",
    [
        (READ.trace_id, "auth.login_success"),
        (CHANGE.trace_id, "auth.login_success"),
        (CHANGE.trace_id, "config.rule_created"),
        (AWAY.trace_id, "auth.login_success"),
    ],
)
def test_a_missing_event_is_found(key: tuple[str, str]) -> None:
    """A success needs its row even if there is a gap row, because otherwise it would have been refused."""
    judgement = judged(stored=without(key), gaps=(DENIED_GAP, gap(5, 90.0, 110.0, at_most=True, by_buffer={})))
    assert found(judgement) == ["acknowledged event missing"]
    assert key[0] in judgement.broken[0].evidence


@pytest.mark.parametrize("key", [(READ.trace_id, "auth.login_success"), (UNHEARD.trace_id, "config.rule_updated")])
def test_a_double_is_found(key: tuple[str, str]) -> None:
    """Even an event without a response counts."""
    assert found(judged(stored={**STORED, key: 2})) == ["event stored twice"]


def test_an_event_without_an_answer_may_be_there() -> None:
    assert found(judged(stored={**STORED, (UNHEARD.trace_id, "config.rule_updated"): 1})) == []


def test_an_event_without_a_cause_is_found() -> None:
    """A refused login is not recorded as a successful one."""
    assert found(judged(stored={**STORED, (REFUSED.trace_id, "auth.login_success"): 1})) == ["event without a cause"]


def test_a_lost_refusal_needs_a_gap_row() -> None:
    stored = without((REFUSED.trace_id, "auth.login_failure"))
    assert found(judged(stored=stored)) == ["loss without a gap row"]
    judgement = judged(stored=stored, gaps=(DENIED_GAP, gap(1, 102.0, 102.0)))
    assert (found(judgement), judgement.lost) == ([], 1)


def test_a_gap_row_of_another_time_does_not_count() -> None:
    stored = without((REFUSED.trace_id, "auth.login_failure"))
    judgement = judged(stored=stored, gaps=(DENIED_GAP, gap(1, 99.0, 101.9, at_most=True, by_buffer={})))
    assert found(judgement) == ["loss without a gap row"]


def test_a_gap_row_that_counts_too_little_is_found() -> None:
    stored = without((REFUSED.trace_id, "auth.login_failure"), (FORBIDDEN.trace_id, "auth.forbidden"))
    assert found(judged(stored=stored, gaps=(DENIED_GAP, gap(1, 102.0, 103.1)))) == ["loss without a gap row"]
    assert found(judged(stored=stored, gaps=(DENIED_GAP, gap(2, 102.0, 103.1)))) == []


def test_a_gap_row_that_counts_too_much_is_found() -> None:
    """An exact count must match. The upper bound of a dead process may be too high."""
    stored = without((REFUSED.trace_id, "auth.login_failure"))
    assert found(judged(stored=stored, gaps=(DENIED_GAP, gap(2, 102.0, 102.1)))) == ["gap row counts too much"]
    assert found(judged(stored=stored, gaps=(DENIED_GAP, gap(9, 102.0, 102.1, at_most=True, by_buffer={})))) == []


def test_two_gap_rows_for_one_loss_are_found() -> None:
    requests = (READ, REFUSED)
    stored = {(READ.trace_id, "auth.login_success"): 1}
    judgement = judged(*requests, stored=stored, gaps=(gap(1, 102.0, 102.1), gap(1, 102.0, 102.1)))
    assert found(judgement) == ["gap rows count too much"]


def test_a_refusal_is_not_lost_while_it_can_be_kept() -> None:
    """A gap row is not accepted if the disk had room."""
    judgement = judged(
        stored=without((REFUSED.trace_id, "auth.login_failure")),
        gaps=(DENIED_GAP, gap(1, 102.0, 102.0)),
        blocked=Window(200.0, 210.0),
    )
    assert found(judgement) == ["refusal lost while it could have been kept"]


def test_a_denied_request_is_counted_too() -> None:
    """The response and the trail both report the loss."""
    assert found(judged(gaps=())) == ["loss without a gap row"]


def test_a_request_in_another_trace_is_named_as_such() -> None:
    """Its events have the trace that the answer names, so they are neither lost nor stray."""
    other = "8" * 32
    strayed = replace(FORBIDDEN, answered_trace_id=other)
    judgement = judged(strayed, stored={(other, "auth.forbidden"): 1}, gaps=())
    assert (found(judgement), judgement.lost) == (["trace not continued"], 0)
    assert (FORBIDDEN.trace_id in judgement.broken[0].evidence, other in judgement.broken[0].evidence) == (True, True)
    continued = replace(FORBIDDEN, answered_trace_id=FORBIDDEN.trace_id)
    assert found(judged(continued, stored=STORED, gaps=())) == []
    judgement = judged(strayed, stored={}, gaps=())
    assert found(judgement) == ["trace not continued", "loss without a gap row"]


def test_a_run_draws_no_trace_id_with_a_time() -> None:
    """The run's ids look like those of other systems, so that none seems to be from the future."""
    own = int(tracing.new_trace_id(), 16)
    drawn = iter([own, 2**127])
    randomness = Random()
    randomness.getrandbits = lambda _bits: next(drawn)  # type: ignore[method-assign]
    assert draw_trace_id(randomness) == f"{2**127 | 1:032x}"
    assert len({draw_trace_id(Random(seed)) for seed in range(100)}) == 100


def test_the_journal_is_written_as_it_happens() -> None:
    """The file has a line when a request is sent and one when it is answered. Unanswered ones stay open."""
    written = io.BytesIO()
    journal = ClientJournal(written)
    journal.send(READ.trace_id, READ.act)
    journal.send(UNHEARD.trace_id, UNHEARD.act)
    assert len(written.getvalue().splitlines()) == 2
    journal.answer(READ.trace_id, 503, "audit_unavailable", READ.trace_id)
    lines = [orjson.loads(line) for line in written.getvalue().splitlines()]
    assert [line["trace_id"] for line in lines] == [READ.trace_id, UNHEARD.trace_id, READ.trace_id]
    assert (lines[2]["status"], lines[2]["reason"]) == (503, "audit_unavailable")
    assert lines[2]["answered_trace_id"] == READ.trace_id
    outcomes = [request.outcome for request in journal.requests.values()]
    assert outcomes == ["503 audit_unavailable", "no answer"]


def test_the_same_seed_gives_the_same_faults() -> None:
    """A minute includes every kind."""
    schedule = make_schedule(7, 60)
    assert schedule == make_schedule(7, 60) != make_schedule(8, 60)
    assert {fault.kind for fault in schedule} == set(KINDS)


CREATED = Change("1", "created", {"new": {"name": "a", "enabled": True, "config": "[redacted]", "updated_at": "then"}})
RENAMED = Change("2", "updated", {"changes": {"name": ["a", "b"]}})
DISABLED = Change("3", "updated", {"changes": {"enabled": [True, False]}})
RENAMED_AGAIN = Change("4", "updated", {"changes": {"name": ["b", "c"]}})
DELETED = Change("5", "deleted", {"old": {"name": "c", "enabled": False}})
ROW = {"name": "c", "enabled": False, "config": {"url": "secret"}, "updated_at": "now"}


def differences(changes: list[Change], row: Mapping[str, Any] | None) -> list[str]:
    return [broken.evidence for broken in find_differences("rule 1", changes, row)]


def test_configuration_follows_from_its_events() -> None:
    """Redacted columns and database clocks are ignored. Two transactions may be in either order."""
    assert differences([CREATED, RENAMED, DISABLED, RENAMED_AGAIN], ROW) == []
    assert differences([CREATED, RENAMED_AGAIN, RENAMED, DISABLED], ROW) == []
    assert differences([CREATED, RENAMED, DISABLED, RENAMED_AGAIN, DELETED], None) == []


@pytest.mark.parametrize(
    ("changes", "row", "evidence"),
    [
        ([CREATED, RENAMED, RENAMED_AGAIN], ROW, "rule 1: enabled"),
        ([CREATED, DISABLED, RENAMED_AGAIN], ROW, "rule 1: 4 follows from nothing"),
        ([RENAMED], ROW, "rule 1: 2 follows from nothing"),
        ([CREATED, CREATED], {**ROW, "name": "a", "enabled": True}, "rule 1: 1 follows from nothing"),
        ([CREATED], None, "rule 1 exists only in events"),
        ([], ROW, "rule 1 exists only in its table"),
        ([CREATED, RENAMED, DISABLED, RENAMED_AGAIN, DELETED], ROW, "rule 1 exists only in its table"),
    ],
)
def test_a_change_that_is_missing_or_too_much_is_found(
    changes: list[Change], row: Mapping[str, Any] | None, evidence: str
) -> None:
    assert differences(changes, row) == [evidence]
