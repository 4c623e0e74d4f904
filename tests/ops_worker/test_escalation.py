"""An open alert notifies each step of its policy once, on time, until it is acknowledged or closed."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest

from services.ops_worker.workers.escalation_worker import EscalationWorker
from services.shared.db import Pool
from tests.support import seed
from tests.support.connections import Connect, is_blocked
from tests.support.escalation_policy import TRACE, channel_id_of, let_pass, open_alert, policy
from tests.support.wait import until


async def run(conn: asyncpg.Connection, limit: int = 100) -> list[tuple[str, int | None]]:
    """Return one pass; outcome and step of each escalation handled."""
    rows = await conn.fetch("select outcome, step_number from ops.run_escalations($1)", limit)
    return [(row["outcome"], row["step_number"]) for row in rows]


async def escalated(conn: asyncpg.Connection, alert_id: int) -> list[tuple[int, str]]:
    """Return step and channel name of each escalation of the alert, in order."""
    rows = await conn.fetch(
        "select e.step_number, c.name from alert_events e join notification_channels c using (tenant_id, channel_id)"
        " where e.alert_id = $1 and e.kind = 'escalated' order by e.event_id",
        alert_id,
    )
    return [(row["step_number"], row["name"]) for row in rows]


async def waiting(conn: asyncpg.Connection) -> list[int]:
    """Return the waiting steps of all alerts."""
    return [row["step_number"] for row in await conn.fetch("select step_number from ops.escalations order by alert_id")]


async def silence(conn: asyncpg.Connection, alert_id: int, minutes: float | None) -> None:
    """Silence the alert as a person would, for a time from now. None ends the silence."""
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', 'Ann', '', '', 'ui_iot')")
        await conn.execute("select evaluator.silence_alert($1, now() + $2 * interval '1 minute')", alert_id, minutes)


async def acknowledge(conn: asyncpg.Connection, alert_id: int) -> None:
    """Acknowledge the alert as a person would."""
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', 'Ann', '', '', 'ui_iot')")
        await conn.execute("select evaluator.acknowledge_alert($1)", alert_id)


async def test_steps_are_notified_on_time_and_once(conn: asyncpg.Connection) -> None:
    """Times count from the opening. No step runs in between, and none waits after the last."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (15, "lead"), (60, "boss")))

    assert await run(conn) == []
    await let_pass(conn, 4.9)
    assert await run(conn) == []
    await let_pass(conn, 0.2)
    assert await run(conn) == [("escalated", 1)]
    assert await run(conn) == []
    await let_pass(conn, 10)
    assert await run(conn) == [("escalated", 2)]
    await let_pass(conn, 44)
    assert await run(conn) == []
    await let_pass(conn, 1)
    assert await run(conn) == [("escalated", 3)]
    assert await escalated(conn, alert_id) == [(1, "team"), (2, "lead"), (3, "boss")]
    assert await waiting(conn) == []
    await let_pass(conn, 1000)
    assert await run(conn) == []


async def test_the_first_step_counts_from_the_recorded_opening(conn: asyncpg.Connection) -> None:
    """A late reading opens a recent alert, which no operator had a chance to handle yet."""
    await open_alert(conn, await policy(conn, (5, "team")))

    row = await conn.fetchrow(
        "select e.due_at, a.opened_at, a.recorded_at from ops.escalations e join alerts a using (alert_id)"
    )
    assert row["opened_at"] == seed.NOON
    assert (row["due_at"] - row["recorded_at"]).total_seconds() == pytest.approx(300, abs=5)


async def test_an_escalation_is_audited_with_the_trace_of_its_alert(conn: asyncpg.Connection) -> None:
    """The row, the event and the audit event have the reading's trace. The audit event names step and channel."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (10, "lead")))
    await let_pass(conn, 6)

    assert await run(conn) == [("escalated", 1)]
    event = await conn.fetchrow("select * from alert_events where kind = 'escalated'")
    assert (event["trace_id"], event["actor"], event["dispatched_at"]) == (TRACE, "ops_worker", None)
    audited = await conn.fetchrow(
        "select *, details->>'step_number' as step, details->>'next_step_number' as next_step"
        " from audit_log where event_type = 'alert.escalated'"
    )
    assert (audited["tenant_id"], audited["entity_id"], audited["trace_id"]) == ("acme", str(alert_id), TRACE)
    assert (audited["source_service"], audited["actor_id"]) == ("ops_worker", "ops_worker")
    assert audited["severity"] == "warning"
    assert (audited["step"], audited["next_step"]) == ("1", "2")
    assert audited["message"] == f"Alert {alert_id} is still open: escalation step 1 notifies channel team."


async def test_an_escalation_becomes_a_notification_for_its_channel(conn: asyncpg.Connection) -> None:
    """The dispatcher sends it with the step, only to the step's channel."""
    await open_alert(conn, await policy(conn, (5, "team"), (10, "lead")))
    await seed.route(conn, await seed.channel(conn, "everyone"))
    await let_pass(conn, 6)
    await run(conn)

    await conn.execute("select dispatcher.dispatch(100)")
    jobs = await conn.fetch(
        "select j.kind, c.name, j.trace_id, j.payload->>'step_number' as step from notification_jobs j"
        " join notification_channels c using (tenant_id, channel_id) order by job_id"
    )
    assert [tuple(job) for job in jobs] == [("opened", "everyone", TRACE, None), ("escalated", "team", TRACE, "1")]


async def test_the_dispatcher_is_woken_once_a_pass(conn: asyncpg.Connection, connect: Connect) -> None:
    """Twenty escalations give one notification. A pass without escalations gives none."""
    policy_id = await policy(conn, (5, "team"))
    for number in range(20):
        await open_alert(conn, policy_id, f"boiler-{number}")
    heard: list[str] = []
    listener = await connect()
    await listener.add_listener("pulse_dispatcher", lambda *_: heard.append("dispatcher"))
    await listener.add_listener("mark", lambda *_: heard.append("mark"))

    assert await run(conn) == []
    await let_pass(conn, 6)
    assert len(await run(conn)) == 20
    await conn.execute("notify mark")  # notifications arrive in the order of their commits
    await until(lambda: "mark" in heard)
    assert heard == ["dispatcher", "mark"]


async def test_a_step_at_once_wakes_ops_worker(conn: asyncpg.Connection, connect: Connect) -> None:
    """A first step after 0 minutes is due when the alert opens, without waiting for the poll."""
    heard: list[str] = []
    listener = await connect()
    await listener.add_listener("pulse_ops", lambda *_: heard.append("ops"))

    await open_alert(conn, await policy(conn, (0, "team")))
    await until(lambda: heard)
    assert await run(conn) == [("escalated", 1)]


async def test_without_steps_nothing_is_scheduled(conn: asyncpg.Connection) -> None:
    """No policy and a policy without steps create no row."""
    await open_alert(conn, None, "boiler-1")
    await open_alert(conn, await policy(conn), "boiler-2")

    assert await waiting(conn) == []


async def test_starting_is_element_by_element(conn: asyncpg.Connection) -> None:
    """Each alert gets its own policy, time and trace. An alert that escalates already is unchanged."""
    first = await open_alert(conn, await policy(conn, (5, "team")), "boiler-1")
    second = await open_alert(conn, None, "boiler-2")
    third = await open_alert(conn, None, "boiler-3")
    hourly = await policy(conn, (60, "lead"), name="hourly")
    at = datetime(2030, 1, 1, tzinfo=UTC)

    started = await conn.fetchval(
        "select ops._start_escalations($1, $2, $3, $4, $5)",
        ["acme"] * 3,
        [first, second, third],
        [hourly, hourly, None],
        [at, at, at],
        ["11" * 16, "22" * 16, "33" * 16],
    )
    assert started == 1
    rows = await conn.fetch("select alert_id, due_at, trace_id from ops.escalations order by alert_id")
    assert [row["alert_id"] for row in rows] == [first, second]
    assert (rows[0]["trace_id"], rows[1]["trace_id"]) == (TRACE, "22" * 16)
    assert rows[1]["due_at"] == datetime(2030, 1, 1, 1, tzinfo=UTC)


async def test_closing_ends_the_escalation(conn: asyncpg.Connection) -> None:
    """A resolved alert notifies no further steps."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team")))
    await seed.readings(conn, (1, 20))
    await conn.execute("select evaluator.evaluate(1000)")
    await let_pass(conn, 6)

    assert await waiting(conn) == []
    assert await run(conn) == []
    assert await escalated(conn, alert_id) == []


async def test_a_row_that_outlived_its_alert_notifies_no_step(conn: asyncpg.Connection) -> None:
    """Even if a code path does not delete the row, an acknowledged alert is not escalated."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team")))
    await conn.execute("update alerts set status = 'acknowledged', acknowledged_at = now(), acknowledged_by = 'ann'")
    await let_pass(conn, 6)

    assert await run(conn) == [("ended", 1)]
    assert await escalated(conn, alert_id) == []
    assert await waiting(conn) == []


async def test_a_silence_keeps_the_gaps(conn: asyncpg.Connection) -> None:
    """The first step delayed by a silence runs at its end, each later one after its own gap."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (10, "lead"), (20, "boss"), (100, "owner")))
    await silence(conn, alert_id, 30)

    await let_pass(conn, 29)
    assert await run(conn) == []
    await let_pass(conn, 2)
    assert await run(conn) == [("escalated", 1)]
    assert await run(conn) == []
    await let_pass(conn, 3)
    assert await run(conn) == []
    await let_pass(conn, 1)
    assert await run(conn) == [("escalated", 2)]
    assert await run(conn) == []
    await silence(conn, alert_id, 60)
    await let_pass(conn, 40)
    await silence(conn, alert_id, None)
    assert await run(conn) == [("escalated", 3)]
    assert await run(conn) == []
    await let_pass(conn, 79)
    assert await run(conn) == []
    await let_pass(conn, 1)
    assert await run(conn) == [("escalated", 4)]
    assert await escalated(conn, alert_id) == [(1, "team"), (2, "lead"), (3, "boss"), (4, "owner")]


async def test_a_silence_that_no_step_fell_into_moves_nothing(conn: asyncpg.Connection) -> None:
    """The step runs at its planned time."""
    alert_id = await open_alert(conn, await policy(conn, (60, "team")))
    await silence(conn, alert_id, 30)
    await let_pass(conn, 59)
    assert await run(conn) == []
    await let_pass(conn, 1)
    assert await run(conn) == [("escalated", 1)]


async def act(conn: asyncpg.Connection, query: str, *arguments: Any) -> None:
    """Run a statement as a person of the tenant."""
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', 'Ann', '', '', 'ui_iot')")
        await conn.execute(query, *arguments)


async def follow(conn: asyncpg.Connection, policy_id: int | None) -> None:
    """Assign another policy, or none, to the only rule."""
    await act(
        conn,
        "select evaluator.update_rule(r.rule_id, jsonb_build_object('policy_id', $1::bigint)) from alert_rules r",
        policy_id,
    )


async def test_a_policy_that_the_rule_lost_ends(conn: asyncpg.Connection) -> None:
    """The escalation ends at once, even if a step is due."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (10, "lead")))
    await let_pass(conn, 6)
    assert await run(conn) == [("escalated", 1)]
    await let_pass(conn, 60)
    await follow(conn, None)
    assert await waiting(conn) == []
    assert await run(conn) == []
    assert await escalated(conn, alert_id) == [(1, "team")]


async def test_a_policy_holds_for_open_alerts_at_once(conn: asyncpg.Connection, connect: Connect) -> None:
    """Times count from the assignment, so an old alert does not run all steps at once."""
    alert_id = await open_alert(conn, None)
    await let_pass(conn, 600)
    first = await policy(conn, (0, "team"), (10, "lead"))
    heard: list[str] = []
    listener = await connect()
    await listener.add_listener("pulse_ops", lambda *_: heard.append("ops"))
    await follow(conn, first)
    await until(lambda: heard)
    assert await run(conn) == [("escalated", 1)]
    assert await run(conn) == []
    await let_pass(conn, 5)
    second = await policy(conn, (7, "boss"), (8, "owner"), name="other")
    await follow(conn, second)
    await let_pass(conn, 6)
    assert await run(conn) == []
    await let_pass(conn, 1)
    assert await run(conn) == [("escalated", 1)]
    assert await run(conn) == []
    assert await escalated(conn, alert_id) == [(1, "team"), (1, "boss")]


@pytest.mark.parametrize("status", ["acknowledged", "closed"])
async def test_a_new_policy_wakes_no_alert_that_was_taken(conn: asyncpg.Connection, status: str) -> None:
    """Acknowledged and closed alerts are left alone."""
    alert_id = await open_alert(conn, None)
    if status == "acknowledged":
        await acknowledge(conn, alert_id)
    else:
        await act(conn, "select evaluator.close_alert($1, 'done')", alert_id)
    await follow(conn, await policy(conn, (0, "team")))
    assert await waiting(conn) == []


async def replan(conn: asyncpg.Connection, policy_id: int, *steps: tuple[float, str]) -> None:
    """Replace the steps of a policy."""
    new_steps = [{"after_minutes": minutes, "channel_id": await channel_id_of(conn, name)} for minutes, name in steps]
    await act(
        conn,
        "select ops.update_policy($1, jsonb_build_object('steps', $2::text::jsonb))",
        policy_id,
        orjson.dumps(new_steps).decode(),
    )


async def test_edited_steps_hold_at_once_and_keep_their_gaps(conn: asyncpg.Connection) -> None:
    """Overdue steps run one after the other. An alert past the last step continues with an added one."""
    policy_id = await policy(conn, (60, "team"), (120, "lead"))
    alert_id = await open_alert(conn, policy_id)
    await let_pass(conn, 30)
    await replan(conn, policy_id, (1, "team"), (3, "lead"))
    assert await run(conn) == [("escalated", 1)]
    assert await run(conn) == []
    await let_pass(conn, 2)
    assert await run(conn) == [("escalated", 2)]
    assert await waiting(conn) == []
    await conn.execute("update alert_events set occurred_at = occurred_at - interval '1 minute'")
    await let_pass(conn, 1)
    await replan(conn, policy_id, (1, "team"), (3, "lead"), (10, "boss"))
    assert await waiting(conn) == [3]
    await let_pass(conn, 5)
    assert await run(conn) == []
    await let_pass(conn, 1)
    assert await run(conn) == [("escalated", 3)]
    await replan(conn, policy_id)
    assert await waiting(conn) == []
    assert await escalated(conn, alert_id) == [(1, "team"), (2, "lead"), (3, "boss")]


async def test_a_step_to_a_disabled_channel_is_a_recorded_decision(conn: asyncpg.Connection) -> None:
    """The next step runs at its time."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (10, "lead")))
    await conn.execute("update notification_channels set enabled = false where name = 'team'")
    await let_pass(conn, 6)
    assert await run(conn) == [("escalated", 1)]
    await conn.execute("select dispatcher.dispatch(100)")
    reasons = await conn.fetch(
        "select c.name, s.reason from suppressions s join alert_events e using (tenant_id, event_id)"
        " join notification_channels c on c.channel_id = s.channel_id where e.kind = 'escalated' order by 1"
    )
    assert [tuple(row) for row in reasons] == [("lead", "other_step"), ("team", "channel_disabled")]
    await let_pass(conn, 5)
    assert await run(conn) == [("escalated", 2)]
    assert await escalated(conn, alert_id) == [(1, "team"), (2, "lead")]


@pytest.mark.parametrize("ending", ["acknowledged", "closed"])
async def test_an_escalation_that_came_too_late_is_not_sent(conn: asyncpg.Connection, ending: str) -> None:
    """The alert was acknowledged or closed between the step and its dispatch."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team")))
    await let_pass(conn, 6)
    assert await run(conn) == [("escalated", 1)]
    if ending == "acknowledged":
        await acknowledge(conn, alert_id)
    else:
        await act(conn, "select evaluator.close_alert($1, 'done')", alert_id)
    await conn.execute("select dispatcher.dispatch(100)")
    assert await conn.fetchval("select count(*) from notification_jobs") == 0
    query = "select s.reason from suppressions s join alert_events e using (event_id) where e.kind = 'escalated'"
    assert await conn.fetchval(query) == f"alert_{ending}"


async def test_a_step_that_comes_due_in_a_silence_is_postponed(conn: asyncpg.Connection) -> None:
    """For any cause of the silence, the pass checks it and postpones the step to its end."""
    await open_alert(conn, await policy(conn, (5, "team")))
    await let_pass(conn, 6)
    await conn.execute("update alerts set silenced_until = now() + interval '1 hour'")

    assert await run(conn) == [("postponed", 1)]
    due_at, silenced_until = await conn.fetchrow("select due_at, silenced_until from ops.escalations, alerts")
    assert due_at == silenced_until
    assert await run(conn) == []


async def test_the_end_of_a_silence_brings_the_step_back(conn: asyncpg.Connection) -> None:
    """Ending a silence runs an overdue step at once, however far it was postponed."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (60, "lead")))
    await silence(conn, alert_id, 43000)
    await let_pass(conn, 6)
    assert await run(conn) == []

    await silence(conn, alert_id, None)
    assert await run(conn) == [("escalated", 1)]
    await silence(conn, alert_id, 10)
    await let_pass(conn, 53)
    assert await run(conn) == []
    await let_pass(conn, 2)
    assert await run(conn) == [("escalated", 2)]


async def test_no_step_is_skipped_after_an_outage(conn: asyncpg.Connection) -> None:
    """After an outage every step that is due is notified, in order."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (15, "lead"), (60, "boss"), (600, "owner")))
    await let_pass(conn, 120)

    assert [await run(conn) for _ in range(4)] == [[("escalated", 1)], [("escalated", 2)], [("escalated", 3)], []]
    assert await escalated(conn, alert_id) == [(1, "team"), (2, "lead"), (3, "boss")]
    assert await waiting(conn) == [4]


async def test_a_policy_that_changed_meanwhile(conn: asyncpg.Connection) -> None:
    """A removed step is skipped. A removed policy ends the escalation."""
    shortened = await open_alert(conn, await policy(conn, (5, "team"), (15, "lead"), (60, "boss")), "boiler-1")
    emptied = await open_alert(conn, await policy(conn, (5, "team"), name="other"), "boiler-2")
    await let_pass(conn, 6)
    await conn.execute("delete from escalation_steps where step_number = 1")

    assert sorted(await run(conn), key=str) == [("ended", None), ("escalated", 2)]
    assert await escalated(conn, shortened) == [(2, "lead")]
    assert await escalated(conn, emptied) == []
    assert await waiting(conn) == [3]


async def test_two_copies_never_notify_twice(conn: asyncpg.Connection, connect: Connect) -> None:
    """A copy skips rows that another has locked, without waiting."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team")))
    await let_pass(conn, 6)
    other = await connect()

    transaction = conn.transaction()
    await transaction.start()
    assert await run(conn) == [("escalated", 1)]
    assert await asyncio.wait_for(run(other), 5) == []
    await transaction.commit()
    assert await run(other) == []
    assert await escalated(conn, alert_id) == [(1, "team")]


async def test_many_copies_share_a_crowd(conn: asyncpg.Connection, connect: Connect) -> None:
    """Four copies with small batches notify each of 120 alerts of its two steps exactly once."""
    policy_id = await policy(conn, (5, "team"), (6, "lead"))
    for number in range(120):
        await open_alert(conn, policy_id, f"boiler-{number}")
    await let_pass(conn, 10)

    async def drain() -> int:
        copy = await connect()
        handled = 0
        while rows := await run(copy, limit=7):
            handled += len(rows)
        return handled

    handled = sum(await asyncio.gather(*(drain() for _ in range(4))))
    handled += len(await run(conn, limit=1000))  # rows that another copy held at the last look
    assert handled == 240
    rows = await conn.fetch(
        "select array_agg(step_number order by event_id) as steps from alert_events"
        " where kind = 'escalated' group by alert_id"
    )
    assert [row["steps"] for row in rows] == [[1, 2]] * 120


async def test_a_pass_takes_no_more_than_its_limit(conn: asyncpg.Connection) -> None:
    """The limit holds even if the planner assumes an empty queue: after a vacuum, then refilled."""
    policy_id = await policy(conn, (5, "team"))
    for number in range(30):
        await open_alert(conn, policy_id, f"boiler-{number}")
    await conn.execute("create table kept as select * from ops.escalations")
    await conn.execute("delete from ops.escalations")
    await conn.execute("vacuum analyze ops.escalations")
    await conn.execute("insert into ops.escalations select * from kept")
    await let_pass(conn, 6)

    assert [len(await run(conn, limit=12)) for _ in range(4)] == [12, 12, 6, 0]


async def test_an_acknowledgement_in_hand_is_respected(conn: asyncpg.Connection, connect: Connect) -> None:
    """During an uncommitted acknowledgement the pass skips the alert. Afterwards no step is due."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team")))
    await let_pass(conn, 6)
    person = await connect()

    transaction = person.transaction()
    await transaction.start()
    await acknowledge(person, alert_id)
    assert await asyncio.wait_for(run(conn), 5) == []
    await transaction.commit()
    assert await run(conn) == []
    assert await escalated(conn, alert_id) == []


async def test_an_acknowledgement_waits_for_a_pass(conn: asyncpg.Connection, connect: Connect) -> None:
    """If the pass is first, the acknowledgement waits and follows the escalation."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (10, "lead")))
    await let_pass(conn, 6)
    person = await connect()

    transaction = conn.transaction()
    await transaction.start()
    assert await run(conn) == [("escalated", 1)]
    taking = asyncio.create_task(acknowledge(person, alert_id))
    await until(lambda: is_blocked(conn, person))
    await transaction.commit()
    await taking
    kinds = [row["kind"] for row in await conn.fetch("select kind from alert_events order by event_id")]
    assert kinds == ["opened", "escalated", "acknowledged"]
    assert await waiting(conn) == []


@pytest.mark.parametrize("ending", ["acknowledge", "close"])
async def test_passes_and_people_at_once_never_deadlock(
    conn: asyncpg.Connection, connect: Connect, ending: str
) -> None:
    """Two copies run while two people end every alert: no call fails, and no step is notified after the end."""
    policy_id = await policy(conn, *((minute, "team") for minute in range(1, 11)))
    alerts = [await open_alert(conn, policy_id, f"boiler-{number}") for number in range(40)]
    await let_pass(conn, 60)

    async def end(some: Sequence[int]) -> None:
        person = await connect()
        for alert_id in some:
            if ending == "acknowledge":
                await acknowledge(person, alert_id)
            else:
                await person.execute(
                    "select evaluator.close_alerts('acme', array[$1::bigint], 'done', 'ann', null)", alert_id
                )

    async def drain() -> None:
        copy = await connect()
        while await copy.fetchval("select count(*) from ops.escalations"):
            await run(copy, limit=5)

    await asyncio.gather(drain(), drain(), end(alerts[::2]), end(alerts[1::2]))
    late = await conn.fetchval(
        "select count(*) from alert_events e join alert_events done using (alert_id)"
        " where e.kind = 'escalated' and done.kind in ('acknowledged', 'closed') and e.event_id > done.event_id"
    )
    assert late == 0
    twice = await conn.fetchval(
        "select count(*) from (select from alert_events where kind = 'escalated' group by alert_id, step_number"
        " having count(*) > 1) twice"
    )
    assert twice == 0


async def test_the_cost_follows_what_is_due(conn: asyncpg.Connection, connect: Connect) -> None:
    """Among 20,000 waiting escalations, a pass reads little more than the due ones, by their index."""
    await open_alert(conn, await policy(conn, (5, "team"), (10, "lead")))
    await conn.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " select 'acme', 'many:' || n, 'many', 'info', 'many', now() from generate_series(1, 20000) n"
    )
    await conn.execute(
        "insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at)"
        " select a.tenant_id, a.alert_id, e.policy_id, 1, now() + interval '1 hour'"
        " from alerts a cross join ops.escalations e where a.fingerprint like 'many:%'"
    )
    await conn.execute("update ops.escalations set due_at = now() where trace_id = $1", TRACE)
    await conn.execute("vacuum analyze ops.escalations")
    await conn.execute("vacuum analyze alerts")

    fresh = await connect()  # its counters start at zero
    async with fresh.transaction():
        assert await run(fresh) == [("escalated", 1)]
        read = await fresh.fetchrow(
            "select sum(seq_tup_read) as scanned, sum(idx_tup_fetch) as fetched from pg_stat_xact_all_tables"
            " where relname in ('escalations', 'alerts')"
        )
    assert (read["scanned"], read["fetched"] < 30) == (0, True)


async def test_the_worker_logs_in_the_trace_of_the_alert(
    conn: asyncpg.Connection, app_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker logs in as pulse_app. A pass returns the number handled and logs alert, step and channel."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team")))
    await let_pass(conn, 6)
    worker = EscalationWorker(batch=10)

    with caplog.at_level("INFO", logger="services.ops_worker"):
        assert await worker.run(app_pool) == 1
        assert await worker.run(app_pool) == 0
    lines: list[dict[str, Any]] = [vars(record) for record in caplog.records]
    assert [(line["message"], line["alert_id"], line["step_number"]) for line in lines] == [
        ("escalation escalated", alert_id, 1)
    ]
