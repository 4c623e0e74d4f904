"""For any configuration and any acts, each alert event has exactly one decision for each channel."""

from typing import Any

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import seed
from tests.support.decisions import act, dispatch
from tests.support.delivery import claim, finish, make_due

DEVICES = ("boiler-1", "boiler-2")
SEVERITIES = ("info", "warning", "error", "critical")

CHANNELS = st.lists(st.sampled_from([True, True, True, False]), min_size=0, max_size=4)
ROUTES = st.lists(
    st.fixed_dictionaries(
        {
            "channel": st.integers(0, 3),
            "min_severity": st.sampled_from(("info", "info", *SEVERITIES)),
            "rule": st.sampled_from([None, None, None, 0, 1]),
            "tag": st.sampled_from([None, None, None, "oven", "fridge"]),
            "enabled": st.sampled_from([True, True, True, False]),
        }
    ),
    max_size=4,
)
STEPS = st.lists(st.integers(0, 3), max_size=3)
# Moves with many consequences are frequent; a send dispatches first.
COMMON = ("breach", "calm", "send", "refuse")
RARE = ("silence", "unsilence", "acknowledge", "close", "escalate", "toggle", "delete", "dispatch", "unroute")
MOVES = st.lists(st.tuples(st.sampled_from(COMMON * 3 + RARE), st.integers(0, 3)), min_size=4, max_size=25)


class World:
    """One tenant with its channels. named: for each dispatched event the channels that had to get a decision."""

    def __init__(self, conn: asyncpg.Connection) -> None:
        self.conn = conn
        self.clock = 0
        self.expected: dict[int, set[int]] = {}

    async def configure(self, channels: list[bool], routes: list[dict[str, Any]], steps: list[int]) -> None:
        """Make channels, a policy, two rules and the routes to existing channels."""
        conn = self.conn
        for device, tag in zip(DEVICES, ("oven", "fridge"), strict=True):
            await seed.device(conn, device, tags=(tag,))
        ids = [await seed.channel(conn, f"c{number}", enabled=on) for number, on in enumerate(channels)]
        await conn.execute("insert into escalation_policies (tenant_id, name) values ('acme', 'p')")
        policy_id = await conn.fetchval("select max(policy_id) from escalation_policies")
        for number, channel in enumerate([ids[step] for step in steps if step < len(ids)], start=1):
            await conn.execute(
                "insert into escalation_steps (tenant_id, policy_id, step_number, after_minutes, channel_id)"
                " values ('acme', $1, $2, 0, $3)",
                policy_id,
                number,
                channel,
            )
        rules = [
            await seed.rule(conn, name=f"r{number}", severity=severity, policy_id=policy_id)
            for number, severity in enumerate(("warning", "critical"))
        ]
        for number, route in enumerate(route for route in routes if route["channel"] < len(ids)):
            await seed.route(
                conn,
                ids[route["channel"]],
                name=f"route {number}",
                min_severity=route["min_severity"],
                rule_id=None if route["rule"] is None else rules[route["rule"]],
                tag=route["tag"],
                enabled=route["enabled"],
            )

    async def dispatch(self) -> None:
        """Record the channels for which each pending event needs a decision, then dispatch."""
        named = await self.conn.fetch(
            "select channel_id from notification_routes union select channel_id from escalation_steps"
        )
        for row in await self.conn.fetch("select event_id from alert_events where dispatched_at is null"):
            self.expected[row["event_id"]] = {channel["channel_id"] for channel in named}
        await dispatch(self.conn)

    async def move(self, move: str, number: int) -> None:
        """Run one move."""
        conn, device = self.conn, DEVICES[number % 2]
        match move:
            case "breach" | "calm":
                self.clock += 1
                await seed.readings(conn, (self.clock, 90 if move == "breach" else 20, device))
                await conn.execute("select evaluator.evaluate(1000)")
            case "silence" | "unsilence" | "acknowledge" | "close":
                found = await conn.fetchrow(
                    "select alert_id, status from alerts where status <> 'closed' and device_id = $1", device
                )
                if found is None or (move == "acknowledge" and found["status"] != "open"):
                    return
                call = {
                    "silence": "silence_alert($1, now() + interval '1 hour')",
                    "unsilence": "silence_alert($1, null)",
                    "acknowledge": "acknowledge_alert($1)",
                    "close": "close_alert($1, 'done')",
                }[move]
                await act(conn, f"select evaluator.{call}", found["alert_id"])
            case "escalate":
                await conn.execute("select ops.run_escalations(10)")
            case "toggle":
                await conn.execute(
                    "update notification_channels set enabled = not enabled where name = $1", f"c{number}"
                )
            case "unroute":
                await conn.execute("delete from notification_routes where name = $1", f"route {number}")
            case "delete":
                await conn.execute(
                    "delete from notification_channels c where name = $1"
                    " and not exists (select from notification_routes r where r.channel_id = c.channel_id)"
                    " and not exists (select from escalation_steps s where s.channel_id = c.channel_id)",
                    f"c{number}",
                )
            case "send" | "refuse":
                await self.dispatch()
                await make_due(conn)  # one transaction, in which no time passes
                await finish(conn, await claim(conn), "delivered" if move == "send" else "refused")
            case _:
                await self.dispatch()

    async def check(self) -> None:
        """Check that every event has exactly one row for each channel that needed one."""
        rows = await self.conn.fetch(
            "select event_id, channel_id from notification_jobs union all select event_id, channel_id from suppressions"
        )
        pairs = [(row["event_id"], row["channel_id"]) for row in rows]
        assert len(pairs) == len(set(pairs))
        for event_id, channels in self.expected.items():
            decided = {channel for event, channel in pairs if event == event_id}
            assert channels <= decided
            assert decided
            assert (None in decided) == (decided == {None})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(channels=CHANNELS, routes=ROUTES, steps=STEPS, moves=MOVES)
async def test_each_event_and_channel_has_exactly_one_decision(
    conn: asyncpg.Connection,
    channels: list[bool],
    routes: list[dict[str, Any]],
    steps: list[int],
    moves: list[tuple[str, int]],
) -> None:
    """Routes, severities, silences, policies, disabled and deleted channels, and any history."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        world = World(conn)
        await world.configure(channels, routes, steps)
        for move, number in [*moves, ("dispatch", 0), *[("send", 0)] * 5]:
            await world.move(move, number)
        await world.check()
        orphan_ends = await conn.fetchval(
            "select count(*) from notification_jobs j"
            " where j.state = 'delivered' and j.kind in ('acknowledged', 'closed')"
            " and not exists (select from notification_jobs o where o.alert_id = j.alert_id"
            " and o.channel_id = j.channel_id and o.kind in ('opened', 'escalated') and o.state = 'delivered')"
        )
        assert orphan_ends == 0
    finally:
        await transaction.rollback()
