"""One tenant's work does not delay another's: passes are bounded, tenants take turns, and flapping is one alert."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from services.cli.tenant import set_limit
from services.evaluator_iot.evaluator import Evaluator
from services.shared.db import Pool
from tests.support import seed
from tests.support.alert_machine import MOST_CHANGES, Machine, matches_events
from tests.support.clock import stop_clock
from tests.support.evaluation import evaluator_of, rows_read


async def add_rules(
    conn: asyncpg.Connection, count: int, *, tenant_id: str = "evil", device_id: str | None = None
) -> None:
    """Give the tenant rules on its temperature, all with the same condition."""
    await conn.execute(
        "insert into alert_rules (tenant_id, name, metric, operator, threshold, device_id)"
        " select $1, 'r' || n, 'temperature', '>', 80, $3 from generate_series(1, $2) n",
        tenant_id,
        count,
        device_id,
    )


def alternating(count: int) -> list[tuple[float, float]]:
    """Return readings that alternate between breach and quiet."""
    return [(float(second), 90.0 if second % 2 else 20.0) for second in range(count)]


async def story(
    conn: asyncpg.Connection, rule_id: int, device_id: str = "boiler-1"
) -> list[tuple[str, float, int | None]]:
    """Return kind, seconds after NOON and changes of the events of a rule's alerts about a device."""
    rows = await conn.fetch(
        "select e.kind, e.occurred_at, e.changes from alert_events e join alerts a using (tenant_id, alert_id)"
        " where a.rule_id = $1 and a.device_id = $2 order by e.event_id",
        rule_id,
        device_id,
    )
    return [(row["kind"], (row["occurred_at"] - seed.NOON).total_seconds(), row["changes"]) for row in rows]


def pairs_of(evaluator: Evaluator, registry_name: str = "pulse_evaluator_pairs_total") -> float:
    """Return the number of pairs that the evaluator's passes have evaluated so far."""
    return sum(
        sample.value
        for family in evaluator.metrics.registry.collect()
        for sample in family.samples
        if sample.name == registry_name
    )


async def run_attack(conn: asyncpg.Connection, pool: Pool, *, rules: int, readings: int, evaluator: Evaluator) -> None:
    """Let one tenant send alternating readings to many rules next to another tenant; compare work and alerts."""
    for tenant_id in ("evil", "good"):
        await seed.device(conn, tenant_id=tenant_id)
    await add_rules(conn, rules)
    await seed.rule(conn, tenant_id="good")
    await stop_clock(conn, "2026-01-05 23:00:00Z")
    sent = alternating(readings)
    await seed.readings(conn, *sent, tenant_id="evil")

    passes = evaluated = 0
    for turn in range(100_000):
        # Between any two passes over the attacker's backlog, the other tenant's reading takes one pass.
        await seed.readings(conn, (turn, 90 if turn % 2 else 20), tenant_id="good")
        before = pairs_of(evaluator)
        await evaluator.step(pool)
        waiting = await conn.fetchval("select count(*) from evaluator.inbox where tenant_id = 'good'")
        assert waiting == 0, turn
        assert pairs_of(evaluator) - before <= evaluator.pairs // 4 + rules + 1
        before = pairs_of(evaluator)
        rows = await evaluator.step_backlog(pool)
        assert pairs_of(evaluator) - before <= evaluator.pairs + rules
        passes, evaluated = passes + 1, turn + 1
        if not rows and not len(evaluator.backlog):
            break
    # The backlog drains as fast as the bound allows, and a pair leaves at most three events a pass.
    assert passes <= 4 + readings * rules / (evaluator.pairs - rules), passes
    events = await conn.fetchval("select count(*) from alert_events where tenant_id = 'evil'")
    assert 0 < events <= 2 * MOST_CHANGES * rules * (passes + 1)
    if evaluator.pairs >= 4 * rules * MOST_CHANGES:
        assert events <= 3 * rules * (passes + 2)
    machine = Machine()
    for at, value in sent:
        machine.read(at, 1_000_000, value)
    rule_ids = await conn.fetch("select rule_id from alert_rules where tenant_id = 'evil' order by rule_id")
    for row in (rule_ids[0], rule_ids[-1]):
        assert matches_events(await story(conn, row["rule_id"]), machine.events)
    firing = await conn.fetchval("select count(*) from rule_state where tenant_id = 'evil' and firing")
    is_open = await conn.fetchval("select count(*) from alerts where tenant_id = 'evil' and status = 'open'")
    assert firing == is_open == (rules if sent[-1][1] > 80 else 0)
    assert await conn.fetchval("select count(*) from alerts where tenant_id = 'good'") == evaluated // 2
    assert await conn.fetchval("select count(*) from trace.orphans") == 0


async def test_an_attack_leaves_the_others_their_turn(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """Each pass is bounded, the other tenant is evaluated in each round, and the attacker's backlog drains."""
    await run_attack(conn, app_pool, rules=40, readings=301, evaluator=evaluator_of(readings=800, pairs=2000))


@pytest.mark.slow
@pytest.mark.parametrize("rules", [200, 1200])
async def test_a_large_attack_leaves_the_others_their_turn(
    conn: asyncpg.Connection, app_pool: Pool, rules: int
) -> None:
    """It has as many rules and readings as one request can bring, within the default limits."""
    await run_attack(conn, app_pool, rules=rules, readings=2000, evaluator=evaluator_of())


@pytest.mark.parametrize("device_id", [None, "boiler-1"])
async def test_tenants_share_the_pairs_of_a_pass(conn: asyncpg.Connection, device_id: str | None) -> None:
    """Each tenant gets its share of the pairs, for rules with or without a device, and at least one reading."""
    for tenant_id in ("a", "b", "c"):
        await seed.device(conn, tenant_id=tenant_id)
        await add_rules(conn, 100, tenant_id=tenant_id, device_id=device_id)
        await seed.readings(conn, *[(second, 20) for second in range(50)], tenant_id=tenant_id)
    row = await conn.fetchrow("select readings, pairs, busy_tenants from evaluator.evaluate(1000, 900)")
    assert (row["readings"], row["pairs"], row["busy_tenants"]) == (9, 900, ["a", "b", "c"])
    row = await conn.fetchrow("select readings, pairs from evaluator.evaluate(1000, 10)")
    assert (row["readings"], row["pairs"]) == (3, 300)
    row = await conn.fetchrow("select readings, pairs, busy_tenants from evaluator.evaluate(1000, 1000, '{b}')")
    assert (row["readings"], row["pairs"], row["busy_tenants"]) == (10, 1000, ["b"])
    row = await conn.fetchrow(
        "select readings, last_tenant from evaluator.evaluate(20, p_after => 'a', p_without => '{b}')"
    )
    assert (row["readings"], row["last_tenant"]) == (20, "a")


async def test_tenants_share_a_pass_by_weight(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """With a backlog each, weight 3 gets three times the readings of weight 1, in readings and in pairs."""
    for tenant_id in ("a", "b"):
        await seed.device(conn, tenant_id=tenant_id)
        await add_rules(conn, 10, tenant_id=tenant_id)
        await seed.readings(conn, *[(second, 20) for second in range(200)], tenant_id=tenant_id)
    await set_limit(app_pool, "a", "evaluation_weight", 3)
    left = "select tenant_id, count(*) from evaluator.inbox group by tenant_id"
    await conn.fetch("select from evaluator.evaluate(40)")
    assert dict(await conn.fetch(left)) == {"a": 170, "b": 190}
    # Fewer pairs than ten for each reading: the pairs run out first.
    await conn.fetch("select from evaluator.evaluate(1000, 400)")
    assert dict(await conn.fetch(left)) == {"a": 140, "b": 180}
    await set_limit(app_pool, "a", "evaluation_weight", None)
    await conn.fetch("select from evaluator.evaluate(40)")
    assert dict(await conn.fetch(left)) == {"a": 120, "b": 160}


async def test_a_pass_costs_the_same_beside_a_thousand_tenants(conn: asyncpg.Connection) -> None:
    """Tenants are found by key, 64 a pass, and all get their turn; one tenant's queue costs the others nothing."""
    await conn.execute(
        "insert into tenants (tenant_id, name) select 't' || n, 't' || n from generate_series(1000, 1999) n"
    )
    await conn.execute(
        "insert into devices (tenant_id, device_id, name) select 't' || n, 'd', 'd' from generate_series(1000, 1999) n"
    )
    await conn.execute(
        "insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value)"
        " select core.shard_of('t' || n, 'd'), n, 't' || n, 'd', 'm', $1::timestamptz, 20"
        " from generate_series(1000, 1999) n",
        seed.NOON,
    )
    await conn.execute(
        "insert into alert_rules (tenant_id, name, metric, operator, threshold)"
        " select 't1999', 'r' || n, 'm', '>', 80 from generate_series(1, 10000) n"
    )
    await seed.device(conn)
    await seed.readings(conn, *[(second, 20) for second in range(3000)])
    after, evaluated, passes = "", 0, 0
    tables = ("inbox", "lanes", "alert_rules", "rule_state")
    while evaluated < 1000 and passes < 20:
        before = await rows_read(conn, tables)
        row = await conn.fetchrow(
            "select readings, last_tenant from evaluator.evaluate(640, 6400, null, $1, '{acme,t1999}')", after
        )
        read = {table: count - before[table] for table, count in (await rows_read(conn, tables)).items()}
        assert all(count <= 64 * 40 for count in read.values()), read
        after, evaluated, passes = row["last_tenant"], evaluated + row["readings"], passes + 1
        if evaluated == 999:
            break
    assert (evaluated, passes) == (999, 16)
    assert await conn.fetchval("select count(*) from evaluator.inbox where tenant_id = 'acme'") == 3000


async def test_a_tenant_with_many_timers_leaves_the_others_theirs(conn: asyncpg.Connection) -> None:
    """A pass fires at most its share of one tenant's timers, together with those of the others."""
    await stop_clock(conn, "2026-01-05 12:00:00Z")
    for tenant_id, devices in (("evil", 400), ("good", 1)):
        rule_id = await seed.rule(conn, tenant_id=tenant_id, for_seconds=60)
        names = [f"d{number}" for number in range(devices)]
        for name in names:
            await seed.device(conn, name, tenant_id=tenant_id)
        await seed.readings(conn, *[(0, 90, name) for name in names], tenant_id=tenant_id)
        assert rule_id
    for _ in range(3):
        await conn.execute("select evaluator.evaluate(10000)")
    assert await conn.fetchval("select count(*) from rule_state where not firing") == 401
    await stop_clock(conn, "2026-01-05 12:02:00Z")
    opened: list[dict[str, int]] = []
    for _ in range(100):
        await conn.execute("select evaluator.evaluate(10)")
        rows = await conn.fetch("select tenant_id, count(*) as alerts from alerts group by tenant_id")
        opened.append({row["tenant_id"]: row["alerts"] for row in rows})
        if opened[-1].get("evil") == 400:
            break
    assert opened[0]["good"] == 1
    assert all(b["evil"] - a["evil"] <= 80 for a, b in pairwise(opened))
    assert opened[-1]["evil"] == 400


async def test_a_change_of_one_tenant_holds_up_no_other(conn: asyncpg.Connection, database_url: str) -> None:
    """While a tenant's rule changes, passes evaluate all other tenants."""
    for tenant_id in ("acme", "other"):
        await seed.device(conn, tenant_id=tenant_id)
        await seed.rule(conn, tenant_id=tenant_id)
        await seed.readings(conn, (0, 90), tenant_id=tenant_id)
    changing = await asyncpg.connect(database_url)
    async with changing.transaction():
        await changing.execute("select evaluator._lock_lanes('acme')")
        assert await conn.fetchval("select readings from evaluator.evaluate(100)") == 1
        assert await conn.fetchval("select array_agg(tenant_id) from alerts") == ["other"]
    assert await conn.fetchval("select readings from evaluator.evaluate(100)") == 1
    await changing.close()


async def test_a_tenant_whose_passes_fail_stops_no_other(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """The tenants of a failed pass are tried one by one; the failing one gets less work, a pause and a report."""
    for tenant_id in ("bad", "good"):
        await seed.device(conn, tenant_id=tenant_id)
        await seed.rule(conn, tenant_id=tenant_id)
        await seed.readings(conn, (0, 90), tenant_id=tenant_id)
    await conn.execute(
        "create function pg_temp_fail() returns trigger language plpgsql as $$ begin raise 'no alert for you'; end $$;"
        " create trigger fail before insert on alerts for each row when (new.tenant_id = 'bad')"
        " execute function pg_temp_fail()"
    )
    evaluator = evaluator_of()
    with pytest.raises(asyncpg.PostgresError, match="no alert"):
        await evaluator.step(app_pool)
    assert evaluator.backlog.tenant_ids() == ["bad", "good"]
    with pytest.raises(asyncpg.PostgresError, match="no alert"):
        await evaluator.step_backlog(app_pool)
    assert await evaluator.step_backlog(app_pool) == 2
    assert await conn.fetchval("select array_agg(tenant_id) from alerts") == ["good"]
    assert evaluator.backlog.tenant_ids() == ["bad"]
    assert evaluator.fault() is None
    for _ in range(2):
        for tenant in evaluator.backlog:
            tenant.due_at = 0
        with pytest.raises(asyncpg.PostgresError, match="no alert"):
            await evaluator.step_backlog(app_pool)
    assert evaluator.fault() == "the last passes over 1 tenant(s) failed; the log names them"
    [tenant] = evaluator.backlog
    assert tenant.share.share == 1 / 64
    await seed.readings(conn, (1, 20), tenant_id="good")
    assert await evaluator.step(app_pool) == 2  # the reading and the closing
    await conn.execute("drop trigger fail on alerts")
    tenant.due_at = 0
    assert await evaluator.step_backlog(app_pool) == 2
    assert (evaluator.fault(), len(evaluator.backlog)) == (None, 0)


FLAPS: list[tuple[str, Sequence[float], list[tuple[str, float, int | None]]]] = [
    ("quiet to quiet", [90, 20] * 6, [("opened", 1, None), ("flapping", 1, 12), ("closed", 12, None)]),
    ("quiet to open", [*[90, 20] * 6, 90], [("opened", 1, None), ("flapping", 1, 13)]),
    ("open to open", [20, 90] * 6, [("opened", 0, None), ("flapping", 12, 12)]),
    ("open to quiet", [*[20, 90] * 6, 20], [("opened", 0, None), ("flapping", 13, 13), ("closed", 13, None)]),
]


@pytest.mark.parametrize(("values", "expected"), [case[1:] for case in FLAPS], ids=[case[0] for case in FLAPS])
async def test_many_changes_in_one_pass_are_one_alert(
    conn: asyncpg.Connection, values: Sequence[float], expected: list[tuple[str, float, int | None]]
) -> None:
    """The alert begins with the first change and ends in the last state; the event has the number of changes."""
    await seed.device(conn)
    rule_id = await seed.rule(conn)
    await stop_clock(conn, "2026-01-05 13:00:00Z")
    channel_id = await seed.channel(conn)
    await seed.route(conn, channel_id)
    await seed.readings(conn, (0, 20 if expected[0][1] else 90))
    await conn.execute("select evaluator.evaluate(1000)")
    await seed.readings(conn, *[(number, value) for number, value in enumerate(values, start=1)])
    await conn.execute("select evaluator.evaluate(1000)")

    assert await story(conn, rule_id) == expected
    assert await conn.fetchval("select count(*) from alerts") == 1
    assert await conn.fetchval("select count(*) from rule_state") == (0 if expected[-1][0] == "closed" else 1)
    flapping = await conn.fetchrow("select message, changes from alert_events where kind = 'flapping'")
    assert flapping["message"] == (
        f"temperature of boiler-1 opened and closed the alert {flapping['changes']} times at once; shown as one"
    )
    assert (
        await conn.fetchval(
            "select (details ->> 'changes')::integer from audit_log where event_type = 'alert.flapping'"
        )
        == flapping["changes"]
    )
    # The beginning and the end are notified, the flapping is not.
    await conn.execute("select dispatcher.dispatch(1000)")
    kinds = [row["kind"] for row in await conn.fetch("select kind from notification_jobs order by job_id")]
    assert kinds == [kind for kind, _, _ in expected if kind != "flapping"]
    assert await conn.fetchval("select array_agg(reason) from suppressions") == ["not_announced"]


async def test_few_changes_in_one_pass_are_written_one_by_one(conn: asyncpg.Connection) -> None:
    """Up to the bound, changes are separate alerts."""
    await seed.device(conn)
    rule_id = await seed.rule(conn)
    await stop_clock(conn, "2026-01-05 13:00:00Z")
    await seed.readings(conn, *[(second, 90 if second % 2 else 20) for second in range(MOST_CHANGES + 1)])
    await conn.execute("select evaluator.evaluate(1000)")
    assert [kind for kind, _, _ in await story(conn, rule_id)] == ["opened", "closed"] * (MOST_CHANGES // 2)


async def test_many_late_breaches_in_one_pass_are_one_alert(conn: asyncpg.Connection) -> None:
    """Late breaches between quiet readings cannot flood the alerts either."""
    await seed.device(conn)
    rule_id = await seed.rule(conn)
    await stop_clock(conn, "2026-01-05 13:00:00Z")
    late = [(at, value) for number in range(1, 21) for at, value in ((10 * number, 20), (10 * number - 5, 90))]
    await seed.readings(conn, *late)
    await conn.execute("select evaluator.evaluate(1000)")
    machine = Machine()
    for at, value in late:
        machine.read(at, 3600, value)
    assert len(machine.events) == 40
    assert await story(conn, rule_id) == [("opened", 5, None), ("flapping", 5, 40), ("closed", 200, None)]
    assert matches_events(await story(conn, rule_id), machine.events)


async def test_the_dispatcher_shares_its_passes(conn: asyncpg.Connection) -> None:
    """A tenant's many events, or its many channels, leave the others their share of each pass."""
    for tenant_id, count in (("evil", 300), ("good", 1)):
        await seed.tenant(conn, tenant_id)
        await conn.execute(
            "with a as (insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
            " select $1, 'x' || n, 'hot', 'warning', '', $3::timestamptz from generate_series(1, $2::integer) n"
            " returning tenant_id, alert_id)"
            " insert into alert_events (tenant_id, alert_id, kind, occurred_at)"
            " select tenant_id, alert_id, 'opened', $3 from a",
            tenant_id,
            count,
            seed.NOON,
        )
    for number in range(20):
        await seed.route(conn, await seed.channel(conn, f"c{number}", tenant_id="evil"), tenant_id="evil")
    undecided = (
        "select count(*) filter (where tenant_id = 'evil'), count(*) filter (where tenant_id = 'good')"
        " from alert_events where dispatched_at is null"
    )
    row: Any = await conn.fetchrow("select events, last_tenant from dispatcher.dispatch(100)")
    # Half of the pass goes to the attacker: 50 events, or 200 decisions about 20 channels.
    assert (row["events"], row["last_tenant"]) == (11, "good")
    assert tuple(await conn.fetchrow(undecided)) == (290, 0)
    passes = 1
    while await conn.fetchval("select events from dispatcher.dispatch(100)"):
        passes += 1
    assert passes == 1 + 290 // 20 + 1
    assert await conn.fetchval("select count(*) from notification_jobs") == 300 * 20


async def test_escalations_share_their_passes(conn: asyncpg.Connection) -> None:
    """A tenant with many due escalations leaves the others their share of each pass."""
    for tenant_id, count, age in (("evil", 60, 2), ("good", 1, 1)):
        await seed.tenant(conn, tenant_id)
        channel_id = await seed.channel(conn, tenant_id=tenant_id)
        await conn.execute(
            "with p as (insert into escalation_policies (tenant_id, name) values ($1, 'p') returning policy_id),"
            " s as (insert into escalation_steps select $1, policy_id, 1, 5, $2::bigint from p),"
            " a as (insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
            " select $1, 'x' || n, 'hot', 'warning', '', $4::timestamptz from generate_series(1, $3::integer) n"
            " returning alert_id)"
            " insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at)"
            " select $1, a.alert_id, p.policy_id, 1, $4::timestamptz - $5::integer * interval '1 hour' from a, p",
            tenant_id,
            channel_id,
            count,
            seed.NOON,
            age,
        )
    first = [row["tenant_id"] for row in await conn.fetch("select tenant_id from ops.run_escalations(10)")]
    assert (first.count("evil"), first.count("good")) == (5, 1)
    handled = 6
    while rows := await conn.fetch("select tenant_id from ops.run_escalations(10)"):
        assert len(rows) <= 10
        handled += len(rows)
    assert handled == 61
