"""Escalation under random sequences of acts equals a small Python model."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.escalation_policy import TRACE

Session = psycopg.Connection[tuple[object, ...]]


@dataclass(slots=True)
class Model:
    """A model of the alert by the documented rules. Times are minutes from its opening."""

    steps: list[int]
    now: float = 0.0
    silenced_until: float = 0.0
    live: bool = True
    notified: list[int] = field(default_factory=list)
    delay: float = 0.0
    """How much later than planned the steps come since a silence held one back."""
    held_until: float = 0.0

    def due(self) -> float:
        """Return the time of the next step."""
        return max(self.steps[len(self.notified)] + self.delay, self.held_until)

    def silence(self, until: float) -> None:
        """Postpone the next step to the silence's end, or to now if the silence is lifted."""
        self.silenced_until = until
        self.held_until = max(self.now, until)

    def run(self) -> None:
        """Notify every step that is due, unless a silence or an end forbids it."""
        while self.live and self.now >= self.silenced_until and len(self.notified) < len(self.steps):
            if self.due() > self.now:
                break
            self.delay = max(self.delay, self.due() - self.steps[len(self.notified)])
            self.held_until = 0.0
            self.notified.append(len(self.notified) + 1)


# Half minutes never coincide with the whole minutes of the steps, so microseconds do not matter.
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(0, 40).map(lambda minutes: minutes + 0.5)),
        st.tuples(st.just("run"), st.integers(1, 3)),
        st.tuples(st.just("silence"), st.integers(1, 40).map(lambda minutes: minutes + 0.25)),
        st.tuples(st.just("unsilence"), st.none()),
        st.tuples(st.just("acknowledge"), st.none()),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=25,
)
STEPS = st.lists(st.integers(0, 60), min_size=1, max_size=6).map(sorted)


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """A session whose work the test rolls back after each example."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("set pulse.actor_id = 'tests'")
        yield connection


def _open(session: Session, steps: list[int]) -> int:
    session.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
    session.execute(
        "insert into notification_channels (tenant_id, name, kind, config) values ('acme', 'sink', 'webhook', '{}')"
    )
    session.execute("insert into escalation_policies (tenant_id, name) values ('acme', 'on call')")
    session.execute(
        "insert into escalation_steps (tenant_id, policy_id, step_number, after_minutes, channel_id)"
        " select 'acme', p.policy_id, s.number, s.minutes, c.channel_id"
        " from unnest(%s::float8[]) with ordinality s (minutes, number)"
        " cross join escalation_policies p cross join notification_channels c",
        [steps],
    )
    row = session.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at, recorded_at, trace_id)"
        " values ('acme', 'f', 'r', 'info', 'm', now(), now(), %s) returning alert_id",
        [TRACE],
    ).fetchone()
    assert row is not None
    session.execute(
        "select ops._start_escalations(array['acme'], array[%s::bigint], array_agg(policy_id), array[now()], array[%s])"
        " from escalation_policies",
        [row[0], TRACE],
    )
    return int(str(row[0]))


def _act(session: Session, model: Model, alert_id: int, act: str, value: float | None) -> None:
    """Apply one act to the alert and its model."""
    match act:
        case "pass":
            assert value is not None
            model.now += value
            session.execute(
                "update alerts set recorded_at = recorded_at - %(m)s * interval '1 minute',"
                " silenced_until = silenced_until - %(m)s * interval '1 minute'",
                {"m": value},
            )
            session.execute("update ops.escalations set due_at = due_at - %s * interval '1 minute'", [value])
        case "run":
            while session.execute("select from ops.run_escalations(%s)", [value]).rowcount:
                pass
            model.run()
        case "silence" | "unsilence":
            if model.live:
                model.silence(model.now + value if value else 0.0)
                session.execute("update alerts set silenced_until = now() + %s * interval '1 minute'", [value])
                session.execute("select ops._reschedule_escalations('acme', array[%s::bigint])", [alert_id])
        case "acknowledge":
            if model.live:
                session.execute(
                    "update alerts set status = 'acknowledged', acknowledged_at = now(), acknowledged_by = 'a'"
                )
                session.execute("delete from ops.escalations")
            model.live = False
        case "close":
            session.execute("select evaluator.close_alerts('acme', array[%s::bigint], 'done', 'ann', null)", [alert_id])
            model.live = False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, acts=ACTS)
def test_escalation_follows_its_model(session: Session, steps: list[int], acts: list[tuple[str, float | None]]) -> None:
    """Each step is notified once, in order, when due, and neither during a silence nor after the end."""
    model = Model(steps)
    with session.transaction(force_rollback=True):
        alert_id = _open(session, steps)
        for act, value in [*acts, ("pass", 10000.5), ("run", 10)]:
            _act(session, model, alert_id, act, value)
            events = session.execute("select step_number from alert_events where kind = 'escalated' order by event_id")
            assert [row[0] for row in events.fetchall()] == model.notified
        left = session.execute("select count(*) from ops.escalations").fetchone()
    # Days later nothing waits: the last silence has ended and every step was notified.
    assert left == (0,)
