"""Alerts follow from the arrivals, for any clocks, delays, requests, passes and evaluators."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import clock, seed
from tests.support.alert_machine import Machine, Row, matches_events

Session = psycopg.Connection[tuple[object, ...]]
DEVICES = 2
FOR_SECONDS = (0, 5, 20)
EXAMPLES = count()


@dataclass(frozen=True, slots=True)
class Sent:
    """A reading: its device, the error of its clock, its delay, and the value."""

    device: int
    skew: int
    delay: int
    value: float


@dataclass(frozen=True, slots=True)
class Request:
    """Seconds that pass before it on the server's clock, the readings, their repeats, and the passes after it."""

    gap: int
    readings: list[Sent]
    repeats: int
    passes: list[tuple[int, int]]


READING = st.builds(
    Sent,
    device=st.integers(0, DEVICES - 1),
    skew=st.sampled_from([0, 0, 0, 0, -9, -600, 7, 240]),
    delay=st.sampled_from([0, 0, 0, 1, 3, 12, 40]),
    value=st.sampled_from([20.0, 90.0, 90.0, 95.0]),
)
REQUESTS = st.lists(
    st.builds(
        Request,
        gap=st.sampled_from([0, 0, 1, 2, 4, 8, 25]),
        readings=st.lists(READING, min_size=1, max_size=5),
        repeats=st.sampled_from([1, 1, 1, 2]),
        passes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=2),
    ),
    min_size=1,
    max_size=14,
)


@dataclass(slots=True)
class Rig:
    """Two evaluators, a writer, the stopped clock, and the rules by their for_seconds."""

    one: Session
    other: Session
    rules: dict[int, int]
    seconds: float = 0.0
    ticks: Iterator[int] = field(default_factory=count)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock. No two moments differ by whole seconds, so no timer ends just when a reading arrives."""
        self.seconds = int(self.seconds + seconds) + next(self.ticks) / 1_000_000
        self.one.execute(clock.set_clock(seed.NOON + timedelta(seconds=self.seconds)).encode())

    def send(self, readings: Sequence[tuple[str, float, float]]) -> None:
        """Send (device, seconds, value) in one request."""
        self.one.execute(
            "select from ingest.record_readings('acme', %s, %s, %s, %s, null)",
            [
                [reading[0] for reading in readings],
                ["temperature"] * len(readings),
                [seed.NOON + timedelta(seconds=reading[1]) for reading in readings],
                [reading[2] for reading in readings],
            ],
        )

    def evaluate(self, first: int, second: int) -> bool:
        """Run two concurrent passes; the first holds its lanes until the second is done."""
        with self.one.transaction():
            done = self.one.execute(
                "select readings + jsonb_array_length(transitions) from evaluator.evaluate(%s)", [first]
            )
            beside = self.other.execute("select readings from evaluator.evaluate(%s)", [second])
            return done.fetchone() != (0,) or beside.fetchone() != (0,)

    def story(self, for_seconds: int, device_id: str) -> list[Row]:
        """Return the events of a rule's alerts about a device."""
        rows = self.one.execute(
            "select e.kind, extract(epoch from e.occurred_at - %s)::float8, e.changes from alert_events e"
            " join alerts a using (tenant_id, alert_id) where a.rule_id = %s and a.device_id = %s order by e.event_id",
            [seed.NOON, self.rules[for_seconds], device_id],
        )
        return [
            (str(kind), round(float(str(at)), 6), None if changes is None else int(str(changes)))
            for kind, at, changes in rows.fetchall()
        ]


@pytest.fixture
def rig(database_url: str) -> Iterator[Rig]:
    with (
        psycopg.connect(database_url, autocommit=True) as one,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        one.execute(clock.create_clock(seed.NOON).encode())
        one.execute("set pulse.actor_id = 'tests'")
        one.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
        rules = {}
        for seconds in FOR_SECONDS:
            made = one.execute(
                "insert into alert_rules (tenant_id, name, metric, operator, threshold, for_seconds)"
                " values ('acme', 'hot', 'temperature', '>', 80, %s) returning rule_id",
                [seconds],
            ).fetchone()
            assert made is not None
            rules[seconds] = int(str(made[0]))
        yield Rig(one, other, rules)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS)
def test_alerts_follow_from_what_arrived_when(rig: Rig, requests: list[Request]) -> None:
    """The evaluator gives the alerts of the plain machine, which has neither requests nor passes."""
    example = next(EXAMPLES)
    devices = [f"e{example}-{number}" for number in range(DEVICES)]
    for device_id in devices:
        rig.one.execute("insert into devices (tenant_id, device_id, name) values ('acme', %s, %s)", [device_id] * 2)
    machines = {(seconds, device_id): Machine(seconds) for seconds in FOR_SECONDS for device_id in devices}
    for request in requests:
        rig.pass_time(request.gap)
        sent = [
            (devices[reading.device], float(int(rig.seconds) - reading.delay + reading.skew), reading.value)
            for reading in request.readings
        ] * request.repeats
        rig.send(sent)
        for device_id, timestamp, value in sent:
            for seconds in FOR_SECONDS:
                machines[seconds, device_id].read(timestamp, rig.seconds, value)
        for first, second in request.passes:
            rig.evaluate(first, second)
    rig.pass_time(1000)
    while rig.evaluate(1000, 1000):
        pass
    for (seconds, device_id), machine in machines.items():
        machine.wait(rig.seconds)
        expected = [(kind, round(at, 6)) for kind, at in machine.events]
        story = rig.story(seconds, device_id)
        assert matches_events(story, expected), f"for_seconds {seconds}: {story} for {expected}"
    ill = rig.one.execute("select count(*) from alerts where closed_at < opened_at").fetchone()
    assert ill == (0,)
