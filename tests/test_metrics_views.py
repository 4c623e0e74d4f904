"""The views of schema metrics: which there are, what they say of a known database, and what they cost on a big one."""

from collections.abc import Callable

import asyncpg

from services.shared.metrics import AUTH_FAILURE_REASONS
from tests import history
from tests.migrating import ROOT
from tests.plans import rows_read
from tests.scraping import exporting
from tests.wait import until

RoleUrl = Callable[[str], str]

# Dashboards and rules name these: a change here is a change for those who watch.
VIEWS = {
    "alerts_open": ("severity",),
    "attack_findings": ("kind", "state"),
    "audit_events_last_hour": ("category",),
    "audit_gaps_last_day": (),
    "audit_holds": (),
    "audit_log_broken": (),
    "audit_log_bytes": ("partition_name",),
    "audit_quarantined_last_day": (),
    "audit_retention_days": (),
    "audit_retention_last_run_age_seconds": (),
    "audit_retention_overdue_months": ("reason",),
    "audit_retention_overdue_seconds": ("reason",),
    "audit_seal_lag_seconds": (),
    "audit_sealed_blocks_total": (),
    "audit_sealed_events_total": (),
    "auth_failures_last_hour": ("reason",),
    "database_connections": ("state",),
    "database_connections_limit": (),
    "database_size_bytes": (),
    "dead_letters": (),
    "default_partition_rows": ("table_name",),
    "delivery_attempts_last_hour": ("outcome",),
    "devices": ("status",),
    "notification_jobs": ("state",),
    "notification_queue_usage_ratio": (),
    "oldest_transaction_age_seconds": (),
    "partitions_ahead_seconds": ("table_name",),
    "queue_depth": ("service", "queue_name"),
    "queue_oldest_age_seconds": ("service", "queue_name"),
    "service_up": ("service",),
    "tracked_tables_unguarded": (),
}
QUEUES = {
    ("evaluator_iot", "inbox"),
    ("evaluator_iot", "pending_timers"),
    ("dispatcher", "alert_events"),
    ("delivery_worker", "notification_jobs"),
    ("ops_worker", "escalations"),
    ("ops_worker", "audit_unsealed"),
}

# One of everything that some view counts, and one of everything that it must not count. Ages in seconds.
SCENARIO = """
insert into public.tenants (tenant_id, name) values ('acme', 'Acme');
insert into public.devices (tenant_id, device_id, name, enabled)
values ('acme', 'online', '', true), ('acme', 'late', '', true), ('acme', 'offline', '', true),
       ('acme', 'new', '', true), ('acme', 'off', '', false);
insert into public.devices (tenant_id, device_id, name, is_gateway) values ('acme', 'gateway', '', true);
insert into public.device_state (tenant_id, device_id, metric, timestamp, value, received_at)
values ('acme', 'online', 'a', now(), 1, now() - interval '2 hours'), ('acme', 'online', 'b', now(), 1, now()),
       ('acme', 'late', 'a', now(), 1, now() - interval '10 minutes'),
       ('acme', 'offline', 'a', now(), 1, now() - interval '61 minutes'), ('acme', 'off', 'a', now(), 1, now());

insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value, received_at)
values (0, 2, 'acme', 'online', 'a', now(), 1, now() - interval '5 seconds'),
       (3, 1, 'acme', 'late', 'a', now(), 1, now() - interval '50 seconds'),
       (3, 9, 'acme', 'late', 'a', now(), 1, now());
insert into public.alert_rules (tenant_id, name, metric, operator, threshold) values ('acme', 'hot', 'a', '>', 1);
insert into public.rule_state (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at)
values ('acme', 1, 'online', 0, now(), false, now(), 2, now() - interval '7 seconds'),
       ('acme', 1, 'late', 3, now(), false, now(), 2, now() + interval '7 seconds'),
       ('acme', 1, 'offline', 5, now(), true, now(), 2, null);

insert into public.alerts (tenant_id, fingerprint, rule_name, severity, status, message, opened_at, acknowledged_at,
                           acknowledged_by, closed_at, close_reason)
values ('acme', 'a', '', 'critical', 'open', '', now(), null, null, null, null),
       ('acme', 'b', '', 'critical', 'acknowledged', '', now(), now(), 'me', null, null),
       ('acme', 'c', '', 'warning', 'closed', '', now(), null, null, now(), 'resolved'),
       ('system', 'd', '', 'info', 'open', '', now(), null, null, null, null);
insert into public.alert_events (tenant_id, alert_id, kind, occurred_at, recorded_at, dispatched_at)
values ('acme', 1, 'opened', now(), now() - interval '90 seconds', now()),
       ('acme', 2, 'opened', now(), now() - interval '30 seconds', null),
       ('acme', 2, 'acknowledged', now(), now() - interval '20 seconds', null);
insert into public.notification_channels (tenant_id, name, kind, config)
select 'acme', 'sink ' || i, 'webhook', '{}' from generate_series(1, 9) i;
insert into public.notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, state, run_at, lease_until,
                                      leased_by, finished_at, payload)
values ('acme', 1, 1, 1, 'opened', 'pending', now() - interval '40 seconds', null, null, null, '{}'),
       ('acme', 1, 1, 2, 'opened', 'pending', now() + interval '40 seconds', null, null, null, '{}'),
       ('acme', 1, 1, 3, 'opened', 'leased', now() - interval '60 seconds', now(), 'w', null, '{}'),
       ('acme', 1, 1, 4, 'opened', 'delivered', now() - interval '9 hours', null, null, now(), '{}'),
       ('acme', 1, 1, 5, 'opened', 'dead', now() - interval '9 hours', null, null, now(), '{}');
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
    """One file a view; all of them are served, value last, and HELP is one sentence."""
    files = {path.stem for path in (ROOT / "sql" / "70_metrics").glob("*.sql")}
    assert files == set(VIEWS)
    columns = "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 order by attnum"
    found = {view: [row[0] for row in await conn.fetch(columns, f"metrics.{view}")] for view in VIEWS}
    assert found == {view: [*labels, "value"] for view, labels in VIEWS.items()}
    async with exporting(role_url("pulse_exporter")) as scraper:
        scrape = await scraper.scrape()
    assert scrape.views() == dict.fromkeys(VIEWS, True)
    for view in VIEWS:
        family = scrape.families[f"pulse_{view}".removesuffix("_total")]
        assert family.documentation.endswith("."), view
        assert ". " not in family.documentation, view
        assert family.type == ("counter" if view.endswith("_total") else "gauge")


async def test_an_empty_database_shows_zeros(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Every label that can ever appear is there from the start, so that no rule waits for a series to be born."""
    await conn.execute("select ops.ensure_partitions()")
    await history.mark_sealed(conn)
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = await scraper.scrape()
    zero = {
        "alerts_open": await _allowed(conn, "alerts_severity_check"),
        "delivery_attempts_last_hour": await _allowed(conn, "delivery_attempts_outcome_check"),
        "auth_failures_last_hour": {*AUTH_FAILURE_REASONS, "other"},
        "devices": {"online", "late", "offline", "never_seen", "gateway", "disabled"},
        "notification_jobs": {"due", "scheduled", "leased"},
        "default_partition_rows": {"telemetry", "audit_log"},
        "audit_retention_overdue_months": {"due", "held", "broken", "unsealed"},
        "audit_retention_overdue_seconds": {"due", "held", "broken", "unsealed"},
    }
    for view, labels in zero.items():
        assert found.series(f"pulse_{view}", *VIEWS[view]) == {(label,): 0 for label in labels}, view
    kinds = [row[0] for row in await conn.fetch("select kind from audit.attack_thresholds")]
    assert set(kinds) == await _allowed(conn, "attack_findings_kind_check")
    assert found.series("pulse_attack_findings", "kind", "state") == {
        (kind, state): 0 for kind in kinds for state in ("open", "last_day")
    }
    assert found.series("pulse_queue_depth", "service", "queue_name") == dict.fromkeys(QUEUES, 0)
    assert found.series("pulse_queue_oldest_age_seconds", "service", "queue_name") == dict.fromkeys(QUEUES, 0)
    registered = {row[0] for row in await conn.fetch("select split_part(event_type, '.', 1) from audit.event_types")}
    assert {category for (category,) in found.series("pulse_audit_events_last_hour", "category")} == registered
    for single in (
        *(
            "dead_letters",
            "tracked_tables_unguarded",
            "audit_gaps_last_day",
            "audit_quarantined_last_day",
            "audit_holds",
        ),
        *("audit_seal_lag_seconds", "audit_retention_days"),
    ):
        assert found.value(f"pulse_{single}") == 0, single
    assert found.value("pulse_audit_retention_last_run_age_seconds") is None


async def test_values_of_a_known_database(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Each view counts what it says, and nothing that is over, not due, too old or not its own."""
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
        ("delivery_worker", "notification_jobs"): 3,
        ("ops_worker", "escalations"): 1,
        ("ops_worker", "audit_unsealed"): 28,
    }
    ages = {
        ("evaluator_iot", "inbox"): 50,
        ("evaluator_iot", "pending_timers"): 7,
        ("dispatcher", "alert_events"): 30,
        ("delivery_worker", "notification_jobs"): 60,
        ("ops_worker", "escalations"): 3,
    }
    seen = found.series("pulse_queue_oldest_age_seconds", "service", "queue_name")
    # Rows of one transaction are equally old to the sealer, whatever their times say.
    assert 0 <= seen.pop(("ops_worker", "audit_unsealed")) <= 9 + late
    assert {queue: ages[queue] <= seen[queue] <= ages[queue] + late for queue in ages} == dict.fromkeys(seen, True)
    attacks = {
        labels: value for labels, value in found.series("pulse_attack_findings", "kind", "state").items() if value
    }
    assert attacks == {
        ("brute_force", "open"): 2,
        ("brute_force", "last_day"): 1,
        ("password_spraying", "last_day"): 1,
    }
    assert counted("alerts_open") == {"critical": 2, "info": 1}
    assert counted("devices") == {"online": 1, "late": 1, "offline": 1, "never_seen": 1, "gateway": 1, "disabled": 1}
    assert counted("notification_jobs") == {"due": 1, "scheduled": 1, "leased": 1}
    assert counted("delivery_attempts_last_hour") == {"retry": 1, "delivered": 1, "unknown": 1}
    assert counted("audit_events_last_hour") == {"auth": 4, "alert": 1, "config": 17}
    assert counted("auth_failures_last_hour") == {"expired": 1, "forbidden": 1, "other": 1}
    assert counted("default_partition_rows") == {"telemetry": 2, "audit_log": 28}
    assert (found.value("pulse_audit_gaps_last_day"), found.value("pulse_audit_quarantined_last_day")) == (2, 1)
    assert (found.value("pulse_audit_sealed_events_total"), found.value("pulse_audit_sealed_blocks_total")) == (17, 7)
    assert (found.value("pulse_audit_holds"), found.value("pulse_audit_retention_days")) == (1, 400)
    assert 0 <= (found.value("pulse_audit_seal_lag_seconds") or 0) <= 9 + late
    assert 7200 <= (found.value("pulse_audit_retention_last_run_age_seconds") or 0) <= 7200 + late
    (partition,) = found.series("pulse_audit_log_bytes", "partition_name").items()
    assert partition == (
        ("audit_log_default",),
        await conn.fetchval("select pg_total_relation_size('audit_log_default')"),
    )
    assert found.series("pulse_service_up", "service") == {("ui_iot",): 1, ("dispatcher",): 0}
    assert found.value("pulse_dead_letters") == 1
    assert found.value("pulse_database_connections_limit") == await conn.fetchval(
        "select setting::int from pg_settings where name = 'max_connections'"
    )
    assert (found.value("pulse_database_size_bytes") or 0) > 1_000_000
    assert 0 <= (found.value("pulse_notification_queue_usage_ratio") or 0) < 1


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
    assert found["notification_jobs"]["oldest_age_seconds"] >= 120
    states = dict(await conn.fetch("select state, value from metrics.notification_jobs"))
    assert states == {"due": 2, "scheduled": 0, "leased": 1}


async def test_partitions_ahead_shrink_to_zero(conn: asyncpg.Connection) -> None:
    """The end of the last partition, and 0 where only the default one is left to catch rows."""
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


async def test_sessions_of_others_are_hidden_or_told(
    conn: asyncpg.Connection, role_url: RoleUrl, database_url: str
) -> None:
    """Without pg_read_all_stats other sessions count as hidden and no age is made up; with it both are known."""
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


async def test_a_long_history_costs_nothing(conn: asyncpg.Connection, database_url: str) -> None:
    """400,000 finished rows lie in the tables; no view reads more than a few hundred rows, and none of what is over."""
    await history.make_history(conn)
    fleet = {"devices": history.DEVICES, "device_state": 2 * history.DEVICES}
    # The catalog has a row for each partition, index and trigger: it grows with the schema, not with history.
    fleet |= {"pg_inherits": 500, "pg_trigger": 500}
    for view in VIEWS:
        read = await rows_read(conn, f"select * from metrics.{view}")
        too_many = {table: rows for table, rows in read.items() if rows > fleet.get(table, 100)}
        assert too_many == {}, view
        # What functions inside a view read shows in no plan.
        assert await audit_rows_read(database_url, f"select * from metrics.{view}") <= 100, view


async def test_a_backlog_does_not_slow_the_ages_or_the_other_queues(
    conn: asyncpg.Connection, database_url: str
) -> None:
    """Each queue holds 10,000 rows: ages are found by index, and a service's own queues without reading another's."""
    await history.make_history(conn)
    await conn.execute(
        """
        set session_replication_role = replica;
        insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value)
        select i % 16, i, 'acme', 'd', 'm', now(), 1 from generate_series(1, 10000) i;
        insert into public.rule_state
          (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at)
        select 'acme', 1, 'd' || i, i % 16, now(), false, now(), 1, now() from generate_series(1, 10000) i;
        insert into public.alert_events (tenant_id, alert_id, kind, occurred_at)
        select 'acme', i, 'opened', now() from generate_series(1, 10000) i;
        insert into public.notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload)
        select 'acme', 1000000 + i, i, 1, 'opened', '{}' from generate_series(1, 10000) i;
        insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at)
        select 'acme', i, 1, 1, now() from generate_series(1, 10000) i;
        select audit.write(array(select audit.event('acme', 'alert.opened') from generate_series(1, 10000)));
        reset session_replication_role;
        analyze
        """
    )
    depths = await conn.fetch("select value from metrics.queue_depth")
    assert [row["value"] for row in depths] == [10_000] * len(QUEUES)
    for view, most in (("queue_oldest_age_seconds", 10), ("audit_seal_lag_seconds", 10), ("queue_depth", 10_000)):
        assert await audit_rows_read(database_url, f"select * from metrics.{view}") <= most, view
    ages = await rows_read(conn, "select * from metrics.queue_oldest_age_seconds")
    assert {table: rows for table, rows in ages.items() if rows > 32} == {}
    own = await rows_read(conn, "select * from api.queues where service = 'dispatcher'")
    assert {table for table, rows in own.items() if rows > 1} == {"alert_events"}
    assert own["alert_events"] <= 10_000 + 1


async def audit_rows_read(url: str, query: str) -> int:
    """Rows of audit_log that a query touches, in functions too."""
    fresh = await asyncpg.connect(url)  # its counters start from nothing
    try:
        async with fresh.transaction():
            await fresh.fetch(query)
            touched = await fresh.fetchval(
                "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))"
                " from pg_stat_xact_all_tables where relname like 'audit\\_log\\_%'"
            )
    finally:
        await fresh.close()
    return int(touched)


async def _allowed(conn: asyncpg.Connection, constraint: str) -> set[str]:
    """The words a check constraint allows."""
    query = """
      select m[1] from pg_constraint c, regexp_matches(pg_get_constraintdef(c.oid), '''([a-z_]+)''', 'g') m
       where c.conname = $1"""
    return {row[0] for row in await conn.fetch(query, constraint)}
