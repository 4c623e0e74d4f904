"""The revision of decisions, pauses and the installation's id, in a database with existing rows."""

import psycopg

from tests.support.migrator import Migrator

BEFORE = "0003"

# An open alert whose incident was opened, silenced; a paused channel; an escalation that waits.
ROWS = """
insert into tenants (tenant_id, name) values ('acme', 'Acme');
insert into notification_channels (tenant_id, name, kind, config)
values ('acme', 'pager', 'pagerduty', '{"routing_key": "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY32"}');
insert into escalation_policies (tenant_id, name) values ('acme', 'p');
insert into escalation_steps (tenant_id, policy_id, step_number, after_minutes, channel_id) values ('acme', 1, 1, 5, 1);
insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at, silenced_until)
values ('acme', 'f:old', 'r', 'info', 'm', now(), now() + interval '1 hour');
insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)
values ('acme', 1, 'opened', now(), now());
insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload, state, finished_at)
values ('acme', 1, 1, 1, 'opened', '{}', 'delivered', now());
insert into delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome)
values ('acme', 1, 1, 1, 1, 'w', 'delivered');
insert into suppressions (tenant_id, event_id, alert_id, channel_id, reason) values ('acme', 1, 1, 1, 'no_route');
insert into delivery.lanes values ('acme', 1, now() + interval '1 hour');
insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at) values ('acme', 1, 1, 1, now());
"""

# Rows of the new revision, as services write them.
NEW_ROWS = """
insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)
values ('acme', 1, 'closed', now(), now());
insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at, delayed_by)
values ('acme', 1, 1, 1, now(), '1 hour');
insert into suppressions (tenant_id, event_id, alert_id, channel_id, reason)
select 'acme', 1, 1, 1, r from unnest(array['below_severity', 'other_step', 'alert_closed', 'not_announced']) r;
insert into notification_jobs
  (tenant_id, event_id, alert_id, channel_id, kind, payload, state, finished_at, dead_reason)
values ('acme', 2, 1, 1, 'closed', '{}', 'dead', now(), 'superseded');
insert into delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome)
values ('acme', 2, 1, 1, 1, 'w', 'limited'), ('acme', 2, 1, 2, 2, 'w', 'gone');
"""


def count(session: psycopg.Connection[tuple[object, ...]], table: str) -> object:
    """Return the number of rows of a table."""
    row = session.execute(f"select count(*) from {table}").fetchone()
    assert row is not None
    return row[0]


def test_old_rows_keep_their_meaning_up_and_down(empty_url: str) -> None:
    """Incidents stay resolvable, silences go on, pauses hold, and a downgrade keeps every row."""
    migrator = Migrator(empty_url)
    migrator.upgrade(BEFORE)
    with psycopg.connect(empty_url) as session:
        session.execute("set pulse.actor_id = 'tests'")
        session.execute(ROWS)
    migrator.upgrade()
    with psycopg.connect(empty_url) as session:
        session.execute("set pulse.actor_id = 'tests'")
        assert count(session, "delivery.lanes where paused_until > now() and limits = 0") == 1
        assert count(session, "ops.escalations where delayed_by = '0'") == 1
        assert count(session, "installation") == 1
        # A new alert with the same fingerprint is silenced; old and new alerts keep their own kind of key.
        session.execute("select evaluator.close_alerts('acme', array[1::bigint], 'done', 'ann', null)")
        session.execute("select evaluator.open_alert('acme', 'f:old', 'r', 'info', 'm', null)")
        assert count(session, "alerts where status = 'open' and silenced_until > now()") == 1
        session.execute("select evaluator.open_alert('acme', 'f:new', 'r', 'info', 'm', null)")
        session.execute("insert into notification_routes (tenant_id, name, channel_id) values ('acme', 'all', 1)")
        session.execute("select dispatcher.dispatch(100)")
        keys = session.execute(
            "select kind, alert_id, payload->>'dedup_key' from notification_jobs"
            " where payload ? 'dedup_key' order by job_id"
        ).fetchall()
        installation = session.execute("select core.installation_id()::text").fetchone()
        assert installation is not None
        assert keys == [("closed", 1, "pulse/acme/1"), ("opened", 3, f"pulse/{installation[0]}/acme/3")]
        session.execute("delete from notification_jobs where job_id > 1")
        session.execute("delete from suppressions where suppression_id > 1")
        session.execute("delete from alert_events where event_id > 1")
        session.execute("alter table alert_events alter column event_id restart with 2")
        session.execute("alter table notification_jobs alter column job_id restart with 2")
        session.execute(NEW_ROWS)
    migrator.downgrade(BEFORE)
    with psycopg.connect(empty_url) as session:
        reasons = session.execute("select reason from suppressions order by suppression_id").fetchall()
        assert [row[0] for row in reasons] == ["no_route", "no_route", *["not_notified"] * 3]
        outcomes = session.execute("select outcome from delivery_attempts order by attempt_id").fetchall()
        assert [row[0] for row in outcomes] == ["delivered", "retry", "refused"]
        assert [count(session, table) for table in ("notification_jobs", "delivery.lanes", "ops.escalations")] == [
            2,
            1,
            1,
        ]
    migrator.upgrade()


def test_an_alert_that_was_escalated_before_is_not_escalated_again(empty_url: str) -> None:
    """It went through its policy's steps before the upgrade, so an edit of the policy notifies no channel again."""
    migrator = Migrator(empty_url)
    migrator.upgrade(BEFORE)
    with psycopg.connect(empty_url) as session:
        session.execute("set pulse.actor_id = 'tests'")
        session.execute(ROWS)
        session.execute(
            "insert into alert_rules (tenant_id, name, metric, operator, threshold, policy_id)"
            " values ('acme', 'r', 'm', '>', 1, 1);"
            "update alerts set rule_id = 1, silenced_until = null;"
            "insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at, channel_id, step_number)"
            " values ('acme', 1, 'escalated', now(), now(), 1, 1);"
            "delete from ops.escalations"
        )
    migrator.upgrade()
    with psycopg.connect(empty_url) as session:
        session.execute("set pulse.actor_id = 'tests'")
        session.execute("set pulse.tenant_id = 'acme'")
        steps = '{"steps": [{"after_minutes": 0, "channel_id": 1}]}'
        session.execute("select ops.update_policy(1, %s)", [steps])
        assert count(session, "ops.escalations") == 0
