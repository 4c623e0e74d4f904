"""For any acts in any order, each trace is a tree that holds all its rows, and no row lost its cause."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tests.support.trail import trace_id_of

HISTORIES = int(os.environ.get("PULSE_TEST_TRACE_HISTORIES", "8"))
KINDS = ("request", "reading", "evaluation", "alert", "event", "suppression", "job", "attempt", "audit")
CAUSES: dict[str, set[str | None]] = {
    "reading": {"request", None},
    "evaluation": {"reading"},
    "alert": {"evaluation", "request", None},
    "event": {"alert", "evaluation", "request", None},
    "suppression": {"event"},
    "job": {"event"},
    "attempt": {"job"},
    "request": {None},
    "audit": {"request", "alert", "event", "job", "attempt", None},
}
EVERYTHING: list[tuple[Any, ...]] = [
    ("read", 0, 0, 0, 95, 3), ("request", 0, 0), ("evaluate",), ("dispatch",), ("deliver", "retry"), ("vanish",),
    ("read", 1, 0, 1, 99, 0), ("read", 0, 1, 0, 20, 0), ("evaluate",), ("acknowledge_alert", 2), ("request", 1, 2),
    ("dispatch",), ("deliver", "refused"), ("redrive",), ("deliver", "delivered"), ("change_rule", 0, 2),
    ("health", 0, False), ("dispatch",),
]  # fmt: skip
Session = psycopg.Connection[dict[str, Any]]
_numbers = itertools.count()

TRACES, TENANTS, DEVICES = st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), TENANTS, TRACES),
        st.tuples(st.just("read"), TENANTS, TRACES, DEVICES, st.sampled_from((20, 95, 99)), st.integers(0, 6)),
        st.tuples(st.just("read"), TENANTS, TRACES, DEVICES, st.sampled_from((20, 95)), st.just(0)),
        st.tuples(st.sampled_from(("evaluate", "dispatch", "vanish", "redrive", "switch_channel"))),
        st.tuples(st.just("deliver"), st.sampled_from(("delivered", "retry", "refused"))),
        st.tuples(st.sampled_from(("acknowledge_alert", "close_alert", "silence_alert")), TRACES),
        st.tuples(st.just("change_rule"), TENANTS, TRACES),
        st.tuples(st.just("health"), TRACES, st.booleans()),
    ),
    min_size=12,
    max_size=40,
)


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """A superuser's session in which each statement is a transaction."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("set pulse.actor_id = 'tests'")
        connection.execute("select ops.ensure_partitions()")
        yield connection


@dataclass(slots=True)
class History:
    """Two tenants that share three traces; every act uses the functions that the services call."""

    session: Session
    tenants: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Insert new tenants with devices, rules and routes."""
        number = next(_numbers)
        self.traces = [
            trace_id_of(datetime.now(UTC), number),
            f"{number + 1:032x}",
            trace_id_of(datetime.now(UTC), number + 1),
        ]
        for name in ("a", "b"):
            tenant = f"{name}{number}"
            self.tenants.append(tenant)
            self.session.execute("insert into tenants (tenant_id, name) values (%s, 'T')", [tenant])
            for device in range(2):
                self.session.execute(
                    "insert into devices (tenant_id, device_id, name) values (%s, %s, 'D')", [tenant, device]
                )
            self.session.execute(
                "insert into alert_rules (tenant_id, name, metric, operator, threshold)"
                " values (%(t)s, 'hot', 'heat', '>', 90), (%(t)s, 'hotter', 'heat', '>', 97)",
                {"t": tenant},
            )
            self.session.execute(
                "insert into notification_channels (tenant_id, name, kind, config)"
                " values (%s, 'sink', 'webhook', '{}')",
                [tenant],
            )
            if name == "a":  # the other tenant has no route
                self.session.execute(
                    "insert into notification_routes (tenant_id, name, channel_id)"
                    " select tenant_id, 'all', channel_id from notification_channels where tenant_id = %s",
                    [tenant],
                )

    def act(self, name: str, *values: Any) -> None:
        """Run one act of the list."""
        getattr(self, f"_{name}")(*values)

    def _as_person(self, call: str, tenant: str, trace_id: str) -> None:
        """Make a user's call, which may be refused."""
        with self.session.transaction():
            self.session.execute("select core.act(%s, 'user', 'alice', 'Alice', '', %s, 'ui_iot')", [tenant, trace_id])
            try:
                with self.session.transaction():
                    self.session.execute(call)
            except psycopg.DatabaseError as error:
                if error.sqlstate not in ("PU404", "PU409"):
                    raise

    def _request(self, tenant: int, trace: int) -> None:
        span_id = f"{next(_numbers):016x}"
        details = orjson.dumps({"method": "POST", "path": "/x", "span_id": span_id} if tenant else {}).decode()
        self.session.execute(
            "select audit.write(array[audit.event(%s, 'auth.login_success', p_trace_id => %s, p_duration_ms => 3,"
            " p_details => %s)])",
            [self.tenants[tenant], self.traces[trace], details],
        )

    def _read(self, tenant: int, trace: int, device: int, value: int, days_ago: int) -> None:
        self.session.execute(
            "select ingest.record_readings(%s, %s, '{heat}', %s, %s, %s)",
            [
                self.tenants[tenant],
                [str(device)],
                [datetime.now(UTC) - timedelta(days=days_ago)],
                [float(value)],
                self.traces[trace],
            ],
        )

    def _evaluate(self) -> None:
        self.session.execute("select evaluator.evaluate(1000)")

    def _dispatch(self) -> None:
        self.session.execute("select dispatcher.dispatch(1000)")

    def _claim(self) -> list[dict[str, Any]]:
        self.session.execute("update notification_jobs set run_at = now() where state = 'pending'")
        return self.session.execute("select * from delivery.claim('w', 100, 30)").fetchall()

    def _deliver(self, outcome: str) -> None:
        jobs = self._claim()
        self.session.execute(
            "select delivery.finish(%s, %s, %s, %s, '{}', '{}', '{}', '{}', '{}')",
            [
                [job["tenant_id"] for job in jobs],
                [job["job_id"] for job in jobs],
                [job["lease_epoch"] for job in jobs],
                [outcome] * len(jobs),
            ],
        )

    def _vanish(self) -> None:
        self._claim()
        self.session.execute("update notification_jobs set lease_until = now() - interval '1 s' where state = 'leased'")
        self.session.execute("select delivery.reap(2)")  # others stay leased

    def _redrive(self) -> None:
        found = self.session.execute("select max(job_id) as id from notification_jobs where state = 'dead'").fetchone()
        if found and found["id"]:
            self._as_person(f"select delivery.redrive({found['id']})", self.tenants[0], self.traces[0])

    def _switch_channel(self) -> None:
        self.session.execute(
            "update notification_channels set enabled = not enabled where tenant_id = %s", [self.tenants[0]]
        )

    def _on_alert(self, function: str, more: str, trace: int) -> None:
        for alert in self.session.execute(
            "select max(alert_id) as id, tenant_id from alerts where status <> 'closed' and tenant_id = any (%s)"
            " group by tenant_id",
            [self.tenants],
        ).fetchall():
            call = f"select evaluator.{function}({alert['id']}{more})"
            self._as_person(call, alert["tenant_id"], self.traces[trace])

    def _acknowledge_alert(self, trace: int) -> None:
        self._on_alert("acknowledge_alert", "", trace)

    def _close_alert(self, trace: int) -> None:
        self._on_alert("close_alert", ", 'enough'", trace)

    def _silence_alert(self, trace: int) -> None:
        self._on_alert("silence_alert", ", now() + interval '1 hour'", trace)

    def _change_rule(self, tenant: int, trace: int) -> None:
        with self.session.transaction():
            self.session.execute("select audit.act('psql:alice', 'why', %s)", [self.traces[trace]])
            self.session.execute(
                "update alert_rules set threshold = threshold + 1 where tenant_id = %s", [self.tenants[tenant]]
            )

    def _health(self, trace: int, is_up: bool) -> None:
        function = (
            "_close_health_alert('ui_iot', 'resolved')" if is_up else "_open_health_alert(row('system', 'ui_iot',"
        )
        more = "" if is_up else " 'http://x', 'down', 3, now(), now(), null, 'gone')::service_health)"
        self._as_person(f"select ops.{function}{more}", "system", self.traces[trace])


def check_tree(session: Session, tenant: str, trace_id: str) -> set[str]:
    """Fail unless the trace is a closed tree of all the tenant's rows; return their kinds."""
    with session.transaction():
        session.execute("select set_config('pulse.tenant_id', %s, true)", [tenant])
        rows = session.execute("select * from api.trace_timeline(%s)", [trace_id]).fetchall()
    kinds = {row["span_id"]: row["kind"] for row in rows}
    assert len(kinds) == len(rows)
    for row in rows:
        # A cause has an earlier kind than its effect, so there are no cycles.
        cause = row["parent_span_id"] and kinds[row["parent_span_id"]]
        assert cause in CAUSES[row["kind"]], row
        assert row["kind"] != "alert" or (cause == "evaluation") == (tenant != "system"), row
    if any(row["kind"] == "request" for row in rows):
        loose = [row for row in rows if row["parent_span_id"] is None]
        assert {row["kind"] for row in loose} == {"request"}, loose
    counted = Counter(row["kind"] for row in rows)
    for kind, table in (
        ("alert", "alerts"), ("event", "alert_events"), ("suppression", "suppressions"), ("job", "notification_jobs"),
        ("attempt", "delivery_attempts"),
    ):  # fmt: skip
        query = f"select count(*) as n from {table} where tenant_id = %s and trace_id = %s"
        (found,) = session.execute(query, [tenant, trace_id]).fetchall()
        assert counted[kind] == found["n"], kind
    query = "select count(*) as n from {} where tenant_id = %s and trace_id = %s"
    (audited,) = session.execute(query.format("audit_log"), [tenant, trace_id]).fetchall()
    (read,) = session.execute(query.format("telemetry"), [tenant, trace_id]).fetchall()
    assert counted["audit"] + counted["request"] == audited["n"]
    assert sum(row["details"]["readings"] for row in rows if row["kind"] == "reading") == read["n"]
    return set(counted)


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
@example(acts=EVERYTHING)
def test_every_trace_is_a_tree_without_orphans(session: Session, acts: list[tuple[Any, ...]]) -> None:
    """Each tree holds all rows of one tenant, each with a cause of an earlier kind or none."""
    history = History(session)
    history.begin()
    for act in acts:
        history.act(*act)
    seen: set[str] = set()
    for trace_id in history.traces:
        for tenant in (*history.tenants, "system"):
            seen |= check_tree(session, tenant, trace_id)
    assert acts is not EVERYTHING or seen == set(KINDS)
    assert session.execute("select * from trace.orphans").fetchall() == []


# A superuser's removal or change, and the orphans that it must show.
FAULTS = {
    "delete from alert_events where kind = 'opened'": {
        "alert without its opening",
        "job without its event",
        "suppression without its event",
    },
    "delete from alerts": {"event without its alert", "audited opening without its alert"},
    "delete from telemetry where trace_id = %(trace_id)s": {"alert without a reading"},
    "delete from notification_jobs": {"dispatched event without job or suppression", "attempt without its job"},
    "delete from suppressions": {"dispatched event without job or suppression"},
    "delete from alert_events e where exists (select from suppressions s where s.event_id = e.event_id)": {
        "suppression without its event",
        "alert without its opening",
    },
    "update notification_jobs set trace_id = md5('other')": {
        "job in another trace than its event",
        "attempt in another trace than its job",
    },
    "update delivery_attempts set trace_id = null": {"attempt in another trace than its job"},
    "delete from delivery_attempts where attempt = 1": {"job with a lease that left no attempt"},
    "delete from delivery_attempts where attempt = 2": {"job with a lease that left no attempt"},
    "delete from delivery_attempts where (job_id, attempt) in (select job_id, max(attempt) from delivery_attempts"
    " group by job_id)": {"job with a lease that left no attempt"},
    "delete from delivery_attempts": {"job with a lease that left no attempt"},
    "update notification_jobs set lease_epoch = lease_epoch + 1": {"job with a lease that left no attempt"},
}


def test_each_orphan_is_named(session: Session) -> None:
    """Everything that the fault broke is named and nothing else; for one trace by index."""
    history = History(session)
    history.begin()
    for act in EVERYTHING:
        history.act(*act)
    query = "select fault, trace_id from trace.orphans"
    for statement, expected in FAULTS.items():
        with session.transaction(force_rollback=True):
            session.execute("set local session_replication_role = replica")
            assert session.execute(statement, {"trace_id": history.traces[0]}).rowcount > 0, statement
            found = session.execute(query).fetchall()
            assert {row["fault"] for row in found} == expected, statement
            named = session.execute(f"{query} where trace_id = %s", [history.traces[0]]).fetchall()
            assert len(named) == len([row for row in found if row["trace_id"] == history.traces[0]])
    assert session.execute(query).fetchall() == []
    session.execute("set enable_seqscan = off")
    plan = session.execute(f"explain {query} where trace_id = 'x'").fetchall()
    assert [row for row in plan if "Seq Scan" in row["QUERY PLAN"]] == []
