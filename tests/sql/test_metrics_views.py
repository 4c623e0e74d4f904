"""The views of schema metrics: their names, their values for a known database, and their cost on a big one."""

import math
from collections.abc import Callable

import asyncpg
import pytest

from services.shared.metrics import AUTH_FAILURE_REASONS
from tests.support import delivery, history, seed
from tests.support.migrator import ROOT
from tests.support.plans import entries_read
from tests.support.scrape import Scrape, exporting
from tests.support.wait import until

RoleUrl = Callable[[str], str]

# Dashboards and alerting rules use these names, so a change breaks them.
VIEWS = {
    "alert_age_seconds": ("severity",),
    "alerts_open": ("severity",),
    "attack_findings_last_day": ("kind",),
    "attack_findings_open": ("kind",),
    "audit_gaps_last_day": (),
    "audit_holds": (),
    "audit_log_broken": (),
    "audit_quarantined_last_day": (),
    "audit_retention_days": (),
    "audit_retention_last_run_age_seconds": (),
    "audit_retention_overdue_months": ("reason",),
    "audit_retention_overdue_seconds": ("reason",),
    "audit_rows": (),
    "audit_seal_lag_seconds": (),
    "audit_sealed_blocks_total": (),
    "audit_sealed_events_total": (),
    "audit_verification_faults": ("scope",),
    "audit_verified_at_seconds": ("scope",),
    "auth_failures_last_hour": ("reason",),
    "channel_secrets": ("protection",),
    "channels_paused": ("channel_kind",),
    "database_connections": ("state",),
    "database_connections_limit": (),
    "database_size_bytes": (),
    "dead_letters": (),
    "default_partition_rows": ("table_name",),
    "delivery_attempts_last_hour": ("outcome",),
    "delivery_latency_seconds": (),
    "devices": ("status",),
    "evaluation_lag_seconds": (),
    "ingest_lag_seconds": (),
    "ingest_readings_total": (),
    "notification_jobs": ("state", "channel_kind"),
    "notification_queue_usage_ratio": (),
    "oldest_transaction_age_seconds": (),
    "partitions": ("table_name",),
    "partitions_ahead_seconds": ("table_name",),
    "limit_refusals_total": ("limit_name",),
    "process_starts_total": ("service",),
    "process_stops_total": ("service",),
    "queue_depth": ("service", "queue_name"),
    "queue_oldest_age_seconds": ("service", "queue_name"),
    "queue_oldest_due_seconds": ("service", "queue_name"),
    "reading_delivery_latency_seconds": (),
    "replication_lag_bytes": (),
    "replication_lag_seconds": (),
    "replication_slot_retained_bytes": (),
    "replication_standbys": (),
    "service_up": ("service",),
    "table_dead_tuples": ("table_name",),
    "table_last_vacuum_age_seconds": ("table_name",),
    "table_size_bytes": ("table_name",),
    "tracked_tables_unguarded": (),
}
HISTOGRAMS = {"alert_age_seconds", "delivery_latency_seconds", "ingest_lag_seconds", "reading_delivery_latency_seconds"}
HOT = {
    "alert_events",
    "alerts",
    "delivery_attempts",
    "device_state",
    "escalations",
    "inbox",
    "notification_jobs",
    "rule_state",
}
QUEUES = {
    ("evaluator_iot", "inbox"),
    ("evaluator_iot", "pending_timers"),
    ("dispatcher", "alert_events"),
    ("delivery_worker", "notification_jobs"),
    ("ops_worker", "escalations"),
    ("ops_worker", "audit_unsealed"),
}

# One row of every kind that some view counts, and one of every kind that it must not count. Ages in seconds.
SCENARIO = """
insert into public.tenants (tenant_id, name) values ('acme', 'Acme');
insert into public.devices (tenant_id, device_id, name, enabled)
values ('acme', 'online', '', true), ('acme', 'late', '', true), ('acme', 'offline', '', true),
       ('acme', 'new', '', true), ('acme', 'off', '', false);
insert into public.devices (tenant_id, device_id, name, is_gateway) values ('acme', 'gateway', '', true);
insert into public.device_state (tenant_id, device_id, metric, timestamp, value, received_at)
values ('acme', 'online', 'a', now(), 1, now() - interval '2 hours'),
       ('acme', 'online', 'b', now() - interval '20 seconds', 1, now()),
       ('acme', 'late', 'a', now(), 1, now() - interval '10 minutes'),
       ('acme', 'offline', 'a', now(), 1, now() - interval '61 minutes'), ('acme', 'off', 'a', now(), 1, now());

insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value, received_at)
values (3, 1, 'acme', 'late', 'a', now(), 1, now() - interval '50 seconds'),
       (0, 2, 'acme', 'online', 'a', now(), 1, now() - interval '5 seconds'),
       (3, 9, 'acme', 'late', 'a', now(), 1, now());
insert into public.alert_rules (tenant_id, name, metric, operator, threshold) values ('acme', 'hot', 'a', '>', 1);
insert into public.rule_state (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at)
values ('acme', 1, 'online', 0, now(), false, now(), 2, now() - interval '7 seconds'),
       ('acme', 1, 'late', 3, now(), false, now(), 2, now() + interval '7 seconds'),
       ('acme', 1, 'offline', 5, now(), true, now(), 2, null);

insert into public.alerts (tenant_id, fingerprint, rule_name, severity, status, message, opened_at, recorded_at,
                           acknowledged_at, acknowledged_by, closed_at, close_reason)
values ('acme', 'a', '', 'critical', 'open', '', now(), now() - interval '2 hours', null, null, null, null),
       ('acme', 'b', '', 'critical', 'acknowledged', '', now(), now(), now(), 'me', null, null),
       ('acme', 'c', '', 'warning', 'closed', '', now(), now(), null, null, now(), 'resolved'),
       ('system', 'd', '', 'info', 'open', '', now(), now() - interval '40 days', null, null, null, null);
insert into public.alert_events
  (tenant_id, alert_id, kind, occurred_at, recorded_at, dispatched_at, reading_received_at)
values ('acme', 1, 'opened', now(), now() - interval '90 seconds', now(), now() - interval '100 seconds'),
       ('acme', 2, 'opened', now(), now() - interval '30 seconds', null, null),
       ('acme', 2, 'acknowledged', now(), now() - interval '20 seconds', null, null);
insert into public.notification_channels (tenant_id, name, kind, config)
select 'acme', 'sink ' || i, case i when 2 then 'slack' when 3 then 'teams' else 'webhook' end,
  case i when 9 then '{"url": "https://a.example/x"}' else '{}' end::jsonb
from generate_series(1, 9) i;
insert into public.notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, state, run_at, lease_until,
                                      leased_by, created_at, finished_at, payload)
values ('acme', 1, 1, 2, 'opened', 'pending', now() + interval '40 seconds', null, null, now() - interval '80 seconds',
        null, '{}'),
       ('acme', 1, 1, 1, 'opened', 'pending', now() - interval '40 seconds', null, null, now(), null, '{}'),
       ('acme', 1, 1, 3, 'opened', 'leased', now() - interval '60 seconds', now(), 'w', now(), null, '{}'),
       ('acme', 1, 1, 4, 'opened', 'delivered', now() - interval '9 hours', null, null, now(), now(), '{}'),
       ('acme', 1, 1, 5, 'opened', 'dead', now() - interval '9 hours', null, null, now(), now(), '{}'),
       ('acme', 3, 2, 6, 'acknowledged', 'delivered', now(), null, null, now(), now(), '{}'),
       ('acme', 1, 1, 7, 'opened', 'delivered', now(), null, null, now(), now() - interval '61 minutes', '{}'),
       ('acme', 1, 1, 999, 'opened', 'pending', now() - interval '30 seconds', null, null, now(), null, '{}'),
       ('acme', 2, 1, 2, 'opened', 'pending', now() - interval '9 hours', null, null, now(), null, '{}'),
       ('acme', 2, 1, 3, 'opened', 'pending', now() - interval '9 hours', null, null, now(), null, '{}'),
       ('acme', 1, 1, 8, 'opened', 'pending', now() - interval '9 hours', null, null, now(), null, '{}');
insert into delivery.lanes (tenant_id, channel_id, paused_until)
values ('acme', 8, now() + interval '1 hour'), ('acme', 1, now() - interval '1 second');
insert into public.delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome, finished_at)
values ('acme', 4, 4, 1, 1, 'w', 'retry', now() - interval '61 minutes'), ('acme', 4, 4, 2, 2, 'w', 'retry', now()),
       ('acme', 4, 4, 3, 3, 'w', 'delivered', now()), ('acme', 5, 5, 1, 1, 'w', 'unknown', now());
insert into public.escalation_policies (tenant_id, name) values ('acme', 'wake');
insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at)
values ('acme', 1, 1, 1, now() - interval '3 seconds'), ('acme', 2, 1, 1, now() + interval '3 seconds');

insert into public.audit_log
  (timestamp, event_id, recorded_at, event_type, category, action, message, source_service)
select now() - age * interval '1 hour', gen_random_uuid(), now() - interval '9 seconds', 'audit.' || action, 'audit',
       action, '', 'ui_iot'
from (values ('gap', 2), ('gap', 23), ('gap', 25), ('quarantined', 2), ('quarantined', 25)) written (action, age);
insert into audit.blocks
values (6, '2001-01-01', '1:1:', '2:2:', '2', 10, 7, now(), now(), sha256(''), sha256(''), now(), 1);
insert into audit.holds (starts_at, ends_at, reason, placed_by, released_by, released_at, release_reason)
values ('-infinity', 'infinity', 'x', 'me', null, null, null), ('-infinity', 'infinity', 'x', 'me', 'me', now(), 'x');
insert into audit.tombstones values ('2000-01-01', 5, 0, 5, now(), '');
update audit.retention set keep_days = 400, last_run_at = now() - interval '2 hours';
insert into public.audit_log
  (tenant_id, timestamp, event_id, event_type, category, action, message, source_service, details)
values ('system', now(), gen_random_uuid(), 'auth.login_failure', 'auth', 'login_failure', '', 'ui_iot',
        '{"reason": "expired"}'),
       ('acme', now(), gen_random_uuid(), 'auth.forbidden', 'auth', 'forbidden', '', 'ui_iot',
        '{"reason": "forbidden"}'),
       ('acme', now(), gen_random_uuid(), 'auth.login_failure', 'auth', 'login_failure', '', 'x',
        '{"reason": "evil\\n} 1"}'),
       ('acme', now() - interval '61 minutes', gen_random_uuid(), 'auth.forbidden', 'auth', 'forbidden', '', 'ui_iot',
        '{"reason": "forbidden"}'),
       ('acme', now(), gen_random_uuid(), 'auth.login_success', 'auth', 'login_success', '', 'ui_iot', '{}'),
       ('acme', now(), gen_random_uuid(), 'alert.opened', 'alert', 'opened', '', 'evaluator_iot', '{}');
insert into audit.attack_findings
  (kind, subject, first_at, last_at, failures, accounts, addresses, detected_at, closed_at)
values ('brute_force', 'a', now(), now(), 1, 1, 1, now() - interval '2 days', null),
       ('brute_force', 'b', now(), now(), 1, 1, 1, now(), null),
       ('password_spraying', 'all', now(), now(), 1, 1, 1, now() - interval '23 hours', now()),
       ('password_spraying', 'all', now(), now(), 1, 1, 1, now() - interval '25 hours', now());
insert into public.telemetry (tenant_id, timestamp, device_id, metric, value)
values ('acme', '2001-01-01', 'late', 'a', 1), ('acme', '2001-01-02', 'late', 'a', 1);
insert into public.service_health (service, url, status, checked_at, changed_at)
values ('ui_iot', '', 'up', now(), now()), ('dispatcher', '', 'down', now(), now()),
       ('evaluator_iot', '', 'up', now() - interval '6 minutes', now());
"""


async def test_every_view_is_served_and_explained(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Each view has its own file and is served with the value last and a HELP of one sentence."""
    files = {path.stem for path in (ROOT / "sql" / "70_metrics").glob("*.sql")}
    assert files == set(VIEWS)
    columns = "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 order by attnum"
    found = {view: [row[0] for row in await conn.fetch(columns, f"metrics.{view}")] for view in VIEWS}
    special = {view: ["le", "value"] if view in HISTOGRAMS else ["value"] for view in VIEWS}
    found = {view: [column for column in columns if column != "sum"] for view, columns in found.items()}
    assert found == {view: [*labels, *special[view]] for view, labels in VIEWS.items()}
    async with exporting(role_url("pulse_exporter")) as scraper:
        scrape = await scraper.scrape()
    assert scrape.views() == dict.fromkeys(VIEWS, True)
    for view in VIEWS:
        family = scrape.families[f"pulse_{view}".removesuffix("_total")]
        assert family.documentation.endswith("."), view
        assert ". " not in family.documentation, view
        kind = "counter" if view.endswith("_total") else "gaugehistogram" if view in HISTOGRAMS else "gauge"
        assert family.type == kind, view


async def test_an_empty_database_shows_zeros(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Every label that can ever appear exists from the start, so that no rule waits for its first sample."""
    await conn.execute("select ops.ensure_partitions()")
    await history.mark_sealed(conn)
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = await scraper.scrape()
    zero = {
        "alerts_open": await _allowed(conn, "alerts_severity_check"),
        "delivery_attempts_last_hour": await _allowed(conn, "delivery_attempts_outcome_check"),
        "auth_failures_last_hour": {*AUTH_FAILURE_REASONS, "other"},
        "devices": {"online", "late", "offline", "never_seen", "gateway", "disabled"},
        "attack_findings_open": await _allowed(conn, "attack_findings_kind_check"),
        "attack_findings_last_day": await _allowed(conn, "attack_findings_kind_check"),
        "default_partition_rows": {"telemetry", "audit_log"},
        "audit_retention_overdue_months": {"due", "held", "broken", "unsealed"},
        "audit_retention_overdue_seconds": {"due", "held", "broken", "unsealed"},
    }
    for view, labels in zero.items():
        assert found.series(f"pulse_{view}", *VIEWS[view]) == {(label,): 0 for label in labels}, view
    channel_kinds = await _allowed(conn, "notification_channels_kind_check") | {"deleted"}
    assert found.series("pulse_notification_jobs", "state", "channel_kind") == {
        (state, kind): 0 for state in ("due", "scheduled", "leased") for kind in channel_kinds
    }
    assert found.series("pulse_queue_depth", "service", "queue_name") == dict.fromkeys(QUEUES, 0)
    assert found.series("pulse_queue_oldest_age_seconds", "service", "queue_name") == dict.fromkeys(QUEUES, 0)
    assert found.series("pulse_queue_oldest_due_seconds", "service", "queue_name") == dict.fromkeys(QUEUES, 0)
    for histogram in HISTOGRAMS:
        buckets = found.series(f"pulse_{histogram}_bucket", *VIEWS[histogram], "le")
        assert set(buckets.values()) == {0}, histogram
        assert {le for *_, le in buckets} >= {"60.0", "300.0", "3600.0", "+Inf"}, histogram
    assert {severity for severity, _ in found.series("pulse_alert_age_seconds_bucket", "severity", "le")} == zero[
        "alerts_open"
    ]
    for single in (
        *(
            "dead_letters",
            "tracked_tables_unguarded",
            "audit_gaps_last_day",
            "audit_quarantined_last_day",
            "audit_holds",
        ),
        *("audit_seal_lag_seconds", "audit_retention_days", "evaluation_lag_seconds", "ingest_readings_total"),
        *("replication_standbys", "replication_slot_retained_bytes"),
    ):
        assert found.value(f"pulse_{single}") == 0, single
    # An operation that never ran has no age, and without a standby there is no lag.
    for single in ("audit_retention_last_run_age_seconds", "replication_lag_bytes", "replication_lag_seconds"):
        assert found.value(f"pulse_{single}") is None, single
    # Only the row of the one block counts as sealed here.
    assert found.value("pulse_audit_rows") == 1
    partitions = found.series("pulse_partitions", "table_name")
    assert (partitions["telemetry",] > 10, partitions["audit_log",] > 3) == (True, True)


async def test_values_of_a_known_database(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Each view counts its own rows, but none that are over, not due, too old or another view's."""
    written = await conn.fetchval("select now()")
    await conn.execute(SCENARIO)
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = await scraper.scrape()
    late = (await conn.fetchval("select now()") - written).total_seconds()

    def counted(view: str) -> dict[str, float]:
        return {label: value for (label,), value in found.series(f"pulse_{view}", *VIEWS[view]).items() if value}

    assert found.series("pulse_queue_depth", "service", "queue_name") == {
        ("evaluator_iot", "inbox"): 3,
        ("evaluator_iot", "pending_timers"): 1,
        ("dispatcher", "alert_events"): 2,
        ("delivery_worker", "notification_jobs"): 7,
        ("ops_worker", "escalations"): 1,
        ("ops_worker", "audit_unsealed"): 28,
    }
    ages = {
        ("evaluator_iot", "inbox"): 50,
        ("evaluator_iot", "pending_timers"): 7,
        ("dispatcher", "alert_events"): 30,
        ("delivery_worker", "notification_jobs"): 80,
        ("ops_worker", "escalations"): 3,
    }
    seen = found.series("pulse_queue_oldest_age_seconds", "service", "queue_name")
    # Rows of one transaction are equally old to the sealer, for any value of their times.
    assert 0 <= seen.pop(("ops_worker", "audit_unsealed")) <= 9 + late
    assert {queue: ages[queue] <= seen[queue] <= ages[queue] + late for queue in ages} == dict.fromkeys(seen, True)
    due = found.series("pulse_queue_oldest_due_seconds", "service", "queue_name")
    del due["ops_worker", "audit_unsealed"]
    # Leased and scheduled rows are not due, nor are rows that wait for one of these or that a pause holds back.
    ages["delivery_worker", "notification_jobs"] = 40
    assert {queue: ages[queue] <= due[queue] <= ages[queue] + late for queue in ages} == dict.fromkeys(due, True)
    assert 50 <= (found.value("pulse_evaluation_lag_seconds") or 0) <= 50 + late
    assert counted("attack_findings_open") == {"brute_force": 2}
    assert counted("attack_findings_last_day") == {"brute_force": 1, "password_spraying": 1}
    assert counted("alerts_open") == {"critical": 2, "info": 1}
    assert counted("devices") == {"online": 1, "late": 1, "offline": 1, "never_seen": 1, "gateway": 1, "disabled": 1}
    assert counted("channels_paused") == {"webhook": 1}
    assert counted("channel_secrets") == {"sealed": 8, "plain": 1}
    jobs = found.series("pulse_notification_jobs", "state", "channel_kind")
    assert {labels: value for labels, value in jobs.items() if value} == {
        ("due", "webhook"): 2, ("due", "deleted"): 1, ("scheduled", "slack"): 1, ("leased", "teams"): 1,
        ("due", "slack"): 1, ("due", "teams"): 1,
    }  # fmt: skip
    age = "alert_age_seconds"
    assert _steps(found, age, severity="critical") == {"60.0": 1, "14400.0": 2}
    assert (_steps(found, age, severity="info"), _steps(found, age, severity="warning")) == ({"+Inf": 1}, {})
    # One for an alert that a reading opened 90 seconds ago, one for an acknowledgement 20 seconds ago.
    assert _steps(found, "delivery_latency_seconds") == {"30.0": 1, "300.0": 2}
    assert _steps(found, "reading_delivery_latency_seconds") == {"300.0": 1}
    assert found.value("pulse_reading_delivery_latency_seconds_gsum") == 100
    assert _steps(found, "ingest_lag_seconds") == {"0.1": 1, "30.0": 2}
    assert found.value("pulse_ingest_readings_total") == 2
    assert counted("delivery_attempts_last_hour") == {"retry": 1, "delivered": 1, "unknown": 1}
    assert counted("auth_failures_last_hour") == {"expired": 1, "forbidden": 1, "other": 1}
    assert counted("default_partition_rows") == {"telemetry": 2, "audit_log": 28}
    assert (found.value("pulse_audit_gaps_last_day"), found.value("pulse_audit_quarantined_last_day")) == (2, 1)
    assert (found.value("pulse_audit_sealed_events_total"), found.value("pulse_audit_sealed_blocks_total")) == (17, 7)
    assert found.value("pulse_audit_rows") == 12
    assert (found.value("pulse_audit_holds"), found.value("pulse_audit_retention_days")) == (1, 400)
    assert 0 <= (found.value("pulse_audit_seal_lag_seconds") or 0) <= 9 + late
    assert 7200 <= (found.value("pulse_audit_retention_last_run_age_seconds") or 0) <= 7200 + late
    size = "select pg_total_relation_size('telemetry_default') + pg_total_relation_size('telemetry')"
    assert found.series("pulse_table_size_bytes", "table_name")["telemetry",] == await conn.fetchval(size)
    assert found.series("pulse_partitions", "table_name") == {("telemetry",): 1, ("audit_log",): 1}
    assert found.series("pulse_service_up", "service") == {("ui_iot",): 1, ("dispatcher",): 0}
    assert found.value("pulse_dead_letters") == 1
    assert found.value("pulse_database_connections_limit") == await conn.fetchval(
        "select setting::int from pg_settings where name = 'max_connections'"
    )
    assert (found.value("pulse_database_size_bytes") or 0) > 1_000_000
    assert 0 <= (found.value("pulse_notification_queue_usage_ratio") or 0) < 1


async def test_latency_counts_from_the_arrival_of_the_reading(conn: asyncpg.Connection) -> None:
    """Only deliveries of alerts that a reading opened or closed count, in one pass or two."""
    await seed.device(conn)
    await seed.rule(conn)
    await seed.rule(conn, metric="pressure", for_seconds=60)
    await seed.route(conn, await seed.channel(conn))
    # Opened and closed again within one pass; then opened by one pass and closed by the next.
    for batch in (((0, 90), (1, 10), (2, 90)), ((3, 10),)):
        await seed.readings(conn, *batch)
        await conn.execute("select evaluator.evaluate(100)")
    # Pending until a timer opens it, without a reading; a person acknowledges it.
    await seed.readings(conn, (0, 90), metric="pressure")
    for _ in range(2):
        await conn.execute("select evaluator.evaluate(100)")
        await conn.execute("update rule_state set due_at = now() where due_at is not null")
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', '', '', '', 'ui_iot')")
        await conn.execute("select evaluator.acknowledge_alert(max(alert_id)) from alerts")
    await conn.execute("select dispatcher.dispatch(100)")
    while leased := await delivery.claim(conn):
        await delivery.finish(conn, leased)
    arrivals = [
        row[0] for row in await conn.fetch("select received_at from telemetry where metric = 'temperature' order by 1")
    ]
    events = await conn.fetch("select kind, reading_received_at from alert_events order by event_id")
    assert [(row["kind"], row["reading_received_at"]) for row in events] == [
        *zip(("opened", "closed", "opened", "closed"), arrivals, strict=True), ("opened", None), ("acknowledged", None),
    ]  # fmt: skip
    exact = """
      select sum(extract(epoch from finished_at - reading_received_at))::float8 as readings,
             sum(extract(epoch from finished_at - recorded_at))::float8 as events
        from notification_jobs join alert_events using (tenant_id, event_id)"""
    sums = dict(await conn.fetchrow(exact))
    for view, count, of in (
        ("reading_delivery_latency_seconds", 4, "readings"),
        ("delivery_latency_seconds", 6, "events"),
    ):
        row = await conn.fetchrow(f"select value, sum from metrics.{view} where le = 'Infinity'")
        assert row["value"] == count, view
        assert row["sum"] == pytest.approx(sums[of]), view


async def test_a_value_on_a_bound_is_at_most_that(conn: asyncpg.Connection) -> None:
    """Buckets count cumulatively up to le, null is no value, and a value above all bounds is in +Inf only."""
    query = "select le, value, sum from core.histogram($1, $2)"
    seconds = [-1.0, 0.005, 0.0051, None, 60.0, math.nextafter(60.0, 61.0)]
    rows = await conn.fetch(query, seconds, [0.005, 60.0])
    assert [(row["le"], row["value"]) for row in rows] == [("0.005", 2), ("60", 4), ("Infinity", 5)]
    assert {row["sum"] for row in rows} == {math.fsum(value for value in seconds if value is not None)}
    assert [row["value"] for row in await conn.fetch(query, None, [1.0])] == [0, 0]


async def test_dead_rows_and_vacuum_are_measured(conn: asyncpg.Connection) -> None:
    """The age is infinite before the first vacuum; a vacuum removes the dead rows and resets the age to zero."""
    ages = "select table_name, value from metrics.table_last_vacuum_age_seconds"
    dead = "select table_name, value from metrics.table_dead_tuples"
    assert dict(await conn.fetch(ages)) == dict.fromkeys(HOT, math.inf)
    await conn.execute(
        "insert into device_state select 'acme', 'd', i::text, now(), 1, now() from generate_series(1, 50) i"
    )
    await conn.execute("delete from device_state")
    await conn.execute("select pg_stat_force_next_flush()")
    assert dict(await conn.fetch(dead)) == dict.fromkeys(HOT, 0) | {"device_state": 50}
    before = await conn.fetchval("select clock_timestamp()")
    await conn.execute("vacuum device_state")
    await conn.execute("select pg_stat_force_next_flush()")
    assert dict(await conn.fetch(dead))["device_state"] == 0
    age = dict(await conn.fetch(ages)).pop("device_state")
    assert 0 <= age <= (await conn.fetchval("select clock_timestamp()") - before).total_seconds()


async def test_what_is_due_follows_the_clock(conn: asyncpg.Connection) -> None:
    """Depth and age move with core.now(), as the workers' own decisions do."""
    await conn.execute(SCENARIO)
    await conn.execute(
        "create or replace function core.now() returns timestamptz language sql stable"
        " return pg_catalog.now() + interval '1 minute'"
    )
    query = "select queue_name, depth, oldest_age_seconds from api.queues where service <> 'dispatcher'"
    found = {row["queue_name"]: row for row in await conn.fetch(query)}
    assert (found["pending_timers"]["depth"], found["escalations"]["depth"]) == (2, 2)
    assert found["notification_jobs"]["oldest_age_seconds"] >= 140
    states = dict(await conn.fetch("select state, sum(value) from metrics.notification_jobs group by state"))
    assert states == {"due": 6, "scheduled": 0, "leased": 1}


async def test_partitions_ahead_shrink_to_zero(conn: asyncpg.Connection) -> None:
    """The end of the last partition, and 0 if only the default one remains."""
    query = "select table_name, value from metrics.partitions_ahead_seconds"
    assert dict(await conn.fetch(query)) == {"telemetry": 0, "audit_log": 0}
    await conn.execute(
        "create table public.telemetry_ahead partition of public.telemetry"
        " for values from ('2001-01-01') to ('2999-01-01 00:00+00')"
    )
    await conn.execute("set timezone = 'Asia/Kolkata'; set datestyle = 'German'")
    left = await conn.fetchval("select extract(epoch from '2999-01-01 00:00+00' - now())::float8")
    found = dict(await conn.fetch(query))
    assert (round(found["telemetry"]), found["audit_log"]) == (round(left), 0)


async def test_sessions_of_others_are_hidden_or_measured(
    conn: asyncpg.Connection, role_url: RoleUrl, database_url: str
) -> None:
    """Without pg_read_all_stats other sessions count as hidden and no age is invented; with it both are known."""
    other = await asyncpg.connect(database_url)
    try:
        async with exporting(role_url("pulse_exporter")) as scraper:
            found = await scraper.scrape()
            states = found.series("pulse_database_connections", "state")
            sessions = await conn.fetchval(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and backend_type = 'client backend'"
            )
            assert (states["hidden",], states["active",]) == (sessions - 1, 1)
            assert found.value("pulse_oldest_transaction_age_seconds") is None
            await conn.execute("grant pg_read_all_stats to pulse_exporter")
            try:
                assert (await scraper.scrape()).value("pulse_oldest_transaction_age_seconds") == 0
                await other.execute("begin; select 1")

                async def age() -> float | None:
                    return (await scraper.scrape()).value("pulse_oldest_transaction_age_seconds")

                await until(age)
                states = (await scraper.scrape()).series("pulse_database_connections", "state")
                assert (states["hidden",], states["active",], states["idle in transaction",]) == (0, 1, 1)
                assert states["idle",] == sessions - 2
            finally:
                await conn.execute("revoke pg_read_all_stats from pulse_exporter")
    finally:
        await other.close()


async def test_neither_history_nor_a_backlog_makes_a_view_slow(conn: asyncpg.Connection) -> None:
    """Each view reads a bounded number of rows, even while the statistics do not include the backlog.

    With PULSE_TEST_HISTORY_ROWS=10000000 and --timeout=0: ten million finished rows, 125,000 waiting in each queue.
    """
    await history.make_history(conn)
    assert await _too_many(conn, waiting=0) == {}
    await history.make_backlog(conn)
    assert await _too_many(conn, waiting=history.BACKLOG) == {}
    depths = await conn.fetch("select queue_name, value from metrics.queue_depth")
    assert dict(depths) == dict.fromkeys((queue for _, queue in QUEUES), history.BACKLOG)
    # A worker that asks for its own queue reads no other.
    assert set(await entries_read(conn, "select * from api.queues where service = 'dispatcher'")) == {"alert_events"}


async def _too_many(conn: asyncpg.Connection, *, waiting: int) -> dict[str, dict[str, int]]:
    """Return the reads of views beyond their bounds while this many rows wait in each queue: rows by view and table."""
    found = {}
    for view in VIEWS:
        most = _bounds(waiting).get(view, {})
        read = await entries_read(conn, f"select * from metrics.{view}")
        found[view] = {table: rows for table, rows in read.items() if rows > most.get(table, 0) + 100}
    return {view: tables for view, tables in found.items() if tables}


def _bounds(waiting: int) -> dict[str, dict[str, int]]:
    """Return the rows that views may read, beyond a few: the fleet, a cap, or waiting rows, but no finished ones."""
    deliveries = {"notification_jobs": 2_000, "alert_events": 2_000}
    queues = ("inbox", "rule_state", "alert_events", "notification_jobs", "escalations", "audit_log")
    counted = min(waiting, 250_000)
    return {
        "devices": {"devices": history.DEVICES, "device_state": 2 * history.DEVICES},
        "ingest_lag_seconds": {"device_state": 2 * history.DEVICES},
        "delivery_latency_seconds": deliveries,
        "reading_delivery_latency_seconds": deliveries,
        "delivery_attempts_last_hour": {"delivery_attempts": min(waiting, 10_000)},
        "auth_failures_last_hour": {"audit_log": min(waiting, 10_000)},
        "alerts_open": {"alerts": counted},
        "alert_age_seconds": {"alerts": counted},
        "notification_jobs": {"notification_jobs": counted},
        "queue_oldest_age_seconds": {"notification_jobs": counted + min(waiting, 5_000)},
        "queue_oldest_due_seconds": {"notification_jobs": min(waiting, 5_000)},
        "queue_depth": dict.fromkeys(queues, counted),
        "default_partition_rows": {"telemetry": 10_000, "audit_log": 10_000},
    }


def _steps(scrape: Scrape, histogram: str, **labels: str) -> dict[str, float]:
    """Return the buckets of a histogram that exceed the previous one, with their counts."""
    names = sorted(labels)
    found = scrape.series(f"pulse_{histogram}_bucket", *names, "le")
    mine = {le: value for (*given, le), value in found.items() if given == [labels[name] for name in names]}
    ordered = sorted(mine, key=float)
    lower = (0.0, *(mine[le] for le in ordered))
    return {le: mine[le] for le, before in zip(ordered, lower, strict=False) if mine[le] > before}


async def _allowed(conn: asyncpg.Connection, constraint: str) -> set[str]:
    """Return the words a check constraint allows."""
    query = """
      select m[1] from pg_constraint c, regexp_matches(pg_get_constraintdef(c.oid), '''([a-z_]+)''', 'g') m
       where c.conname = $1"""
    return {row[0] for row in await conn.fetch(query, constraint)}
