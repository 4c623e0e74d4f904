"""Upgrading and downgrading with alerts, pending pairs and waiting readings of the older evaluator."""

import psycopg

from tests.support.migrator import Migrator

OLD = """
insert into tenants (tenant_id, name) values ('acme', 'Acme');
insert into devices (tenant_id, device_id, name) values
  ('acme', 'boiler-1', 'Boiler 1'), ('acme', 'boiler-2', 'Boiler 2');
insert into alert_rules (tenant_id, name, metric, operator, threshold, for_seconds) overriding system value
values ('acme', 'hot', 'temperature', '>', 80, 0), ('acme', 'hot for long', 'temperature', '>', 80, 600);
insert into telemetry (tenant_id, timestamp, device_id, metric, value, reading_id, received_at) values
  ('acme', now() - interval '50 s', 'boiler-1', 'temperature', 90, 1, now() - interval '50 s'),
  ('acme', now() - interval '70 s', 'boiler-1', 'temperature', 20, 2, now() - interval '10 s'),
  ('acme', now() - interval '5 s', 'boiler-1', 'temperature', 91, 3, now() - interval '5 s'),
  ('acme', now() + interval '240 s', 'boiler-2', 'temperature', 95, 4, now() - interval '30 s');
select setval('telemetry_reading_id_seq', 4);
insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value, received_at)
select (hashtextextended('acme/' || device_id, 0) & 15)::smallint, reading_id, tenant_id, device_id, metric, timestamp,
  value, received_at
from telemetry where reading_id in (2, 3);
insert into alerts (tenant_id, fingerprint, rule_id, rule_name, device_id, metric, severity, message, opened_at, status,
  closed_at, close_reason)
select 'acme', 'rule:1:' || a.device, 1, 'hot', a.device, 'temperature', 'warning', 'm', now() + a.opened, a.status,
  now() + a.closed, case when a.status = 'closed' then 'resolved' end
from (values
  ('boiler-1', interval '-50 s', 'open', null::interval),
  ('boiler-2', '240 s', 'open', null),
  ('gone', '-1 h', 'closed', '-2 h')) a (device, opened, status, closed);
insert into rule_state (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at)
select 'acme', r.rule, r.device, (hashtextextended('acme/' || r.device, 0) & 15)::smallint, r.since, r.due is null,
  r.since, 90, r.due
from (values
  (1, 'boiler-1', now() - interval '50 s', null),
  (1, 'boiler-2', now() + interval '240 s', null),
  (2, 'boiler-1', now() - interval '50 s', now() + interval '550 s'),
  (2, 'boiler-2', now() + interval '240 s', now() + interval '840 s')) r (rule, device, since, due);
"""
OPEN = "select fingerprint from alerts where status = 'open' order by 1"
STATE = "select rule_id, device_id, firing, due_at is not null from rule_state order by 1, 2"


def test_an_upgrade_opens_and_closes_nothing(empty_url: str) -> None:
    """Alerts stay open, pending pairs stay pending, waiting readings count as before, and a downgrade keeps them."""
    migrator = Migrator(empty_url)
    migrator.upgrade("0003")
    with psycopg.connect(empty_url) as session:
        session.execute(OLD.encode())
        alerts, state = session.execute(OPEN).fetchall(), session.execute(STATE).fetchall()
    migrator.upgrade()
    with psycopg.connect(empty_url) as session:
        session.execute("set pulse.actor_id = 'tests'")
        due = session.execute(
            "select extract(epoch from due_at - now()) from rule_state where rule_id = 2 order by due_at"
        )
        from_arrival, after_skew = (float(row[0]) for row in due.fetchall())
        assert 500 < from_arrival <= 550 < after_skew <= 570
        done = session.execute(
            "select sum(readings), jsonb_agg(transitions)::text from evaluator.evaluate(100)"
        ).fetchone()
        assert done == (2, "[[]]")
        assert session.execute(OPEN).fetchall() == alerts
        assert session.execute(STATE).fetchall() == state
        names = session.execute("select device_name from alerts order by fingerprint").fetchall()
        assert names == [("Boiler 1",), ("Boiler 2",), (None,)]
        ahead = session.execute(
            "select max(opened_at) <= now(), bool_and(closed_at >= opened_at) from alerts"
        ).fetchone()
        assert ahead == (True, True)
        # A quiet reading after the upgrade ends the breach that a fast clock began.
        session.execute(
            "select ingest.record_readings('acme', '{boiler-2}', '{temperature}', array[now()], '{20}', null)"
        )
        session.execute("select from evaluator.evaluate(100)")
        assert session.execute(OPEN).fetchall() == alerts[:1]
        session.execute(
            "select ingest.record_readings('acme', '{boiler-1,boiler-1}', '{temperature,temperature}',"
            " array[now(), now()], '{90,95}', null)"
        )
    migrator.downgrade("0003")
    with psycopg.connect(empty_url) as session:
        assert session.execute("select value from evaluator.inbox order by reading_id").fetchall() == [(90,), (95,)]
        assert session.execute(OPEN).fetchall() == alerts[:1]
    migrator.upgrade()


FLAPPING = """
insert into alert_events (tenant_id, alert_id, kind, occurred_at, message, changes, dispatched_at)
select tenant_id, alert_id, 'flapping', now(), 'm', 12, now() from alerts where status = 'open';
"""
QUEUED = """
insert into evaluator.inbox (shard, arrival, reading_id, tenant_id, device_id, metric, timestamp, value)
values (3, 7, 7, 'acme', 'boiler-1', 'temperature', now(), 90), (3, 8, 8, 'acme', 'boiler-1', 'temperature', now(), 20);
"""


def test_claims_by_tenant_keep_what_waits(empty_url: str) -> None:
    """Waiting readings and timers survive, tenants get lanes, and a downgrade turns a flapping event into an update."""
    migrator = Migrator(empty_url)
    migrator.upgrade("0003")
    with psycopg.connect(empty_url) as session:
        session.execute(OLD.encode())
    migrator.upgrade("0008")
    with psycopg.connect(empty_url) as session:
        session.execute("delete from evaluator.inbox")
        session.execute(QUEUED)
        state = session.execute(STATE).fetchall()
    migrator.upgrade()
    lanes = "select tenant_id, count(*) from evaluator.lanes group by 1 order by 1"
    with psycopg.connect(empty_url) as session:
        assert session.execute(lanes).fetchall() == [("acme", 16), ("system", 16)]
        assert session.execute("select array_agg(arrival) from evaluator.inbox").fetchone() == ([7, 8],)
        assert session.execute(STATE).fetchall() == state
        session.execute("insert into tenants (tenant_id, name) values ('new', 'New')")
        assert session.execute(lanes).fetchall() == [("acme", 16), ("new", 16), ("system", 16)]
        session.execute(FLAPPING)
    migrator.downgrade("0008")
    with psycopg.connect(empty_url) as session:
        kinds = session.execute("select kind, message from alert_events").fetchall()
        assert kinds == [("updated", "m")] * 2
        assert session.execute("select count(*) from evaluator.shards").fetchone() == (16,)
        assert session.execute("select array_agg(arrival) from evaluator.inbox").fetchone() == ([7, 8],)
    migrator.upgrade()
    with psycopg.connect(empty_url) as session:
        assert session.execute(lanes).fetchall() == [("acme", 16), ("new", 16), ("system", 16)]


DEFAULT_WEIGHT = "select value from tenant_limits where (tenant_id, limit_name) = ('system', 'evaluation_weight')"
LIMITS = "select limit_name, value from tenant_limits where tenant_id = 'acme' order by 1"
OF_INBOX = "select indexname from pg_indexes where schemaname = 'evaluator' and tablename = 'inbox' order by 1"


def test_weights_leave_limits_and_what_waits_as_they_are(empty_url: str) -> None:
    """A downgrade drops the weights alone; readings that wait keep their order both ways."""
    migrator = Migrator(empty_url)
    migrator.upgrade("0014")
    with psycopg.connect(empty_url, options="-c pulse.actor_id=test") as session:
        session.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
        session.execute("insert into tenant_limits (tenant_id, limit_name, value) values ('acme', 'rules', 5)")
        session.execute(QUEUED)
        indexes = session.execute(OF_INBOX).fetchall()
    migrator.upgrade("0015")
    with psycopg.connect(empty_url, options="-c pulse.actor_id=test") as session:
        assert session.execute(LIMITS).fetchall() == [("rules", 5)]
        assert session.execute(DEFAULT_WEIGHT).fetchone() == (1,)
        session.execute(
            "insert into tenant_limits (tenant_id, limit_name, value) values ('acme', 'evaluation_weight', 3)"
        )
    migrator.downgrade("0014")
    with psycopg.connect(empty_url) as session:
        assert session.execute(LIMITS).fetchall() == [("rules", 5)]
        assert session.execute(OF_INBOX).fetchall() == indexes
        assert session.execute("select array_agg(arrival order by arrival) from evaluator.inbox").fetchone() == (
            [7, 8],
        )
    migrator.upgrade()
    with psycopg.connect(empty_url) as session:
        assert session.execute(LIMITS).fetchall() == [("rules", 5)]
        assert session.execute("select array_agg(arrival order by arrival) from evaluator.inbox").fetchone() == (
            [7, 8],
        )
