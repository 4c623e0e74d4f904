"""Escalation policies, alerts that they escalate, and the passage of time."""

import asyncpg

from tests.support import seed

TRACE = "7e" * 16


async def policy(conn: asyncpg.Connection, *steps: tuple[float, str], name: str = "on call") -> int:
    """Insert a policy whose steps are (minutes after opening, channel name); return its id."""
    await seed.tenant(conn)
    query = "insert into escalation_policies (tenant_id, name) values ('acme', $1) returning policy_id"
    policy_id = int(await conn.fetchval(query, name))
    for number, (minutes, channel) in enumerate(steps, start=1):
        await conn.execute(
            "insert into escalation_steps (tenant_id, policy_id, step_number, after_minutes, channel_id)"
            " values ('acme', $1, $2, $3, $4)",
            policy_id,
            number,
            float(minutes),
            await channel_id_of(conn, channel),
        )
    return policy_id


async def channel_id_of(conn: asyncpg.Connection, name: str) -> int:
    query = "select channel_id from notification_channels where tenant_id = 'acme' and name = $1"
    return await conn.fetchval(query, name) or await seed.channel(conn, name)


async def open_alert(conn: asyncpg.Connection, policy_id: int | None, device_id: str = "boiler-1") -> int:
    """Open an alert through the evaluator with a reading of the device; return its id."""
    await seed.device(conn, device_id)
    await seed.rule(conn, name=f"hot {device_id}", device_id=device_id, policy_id=policy_id)
    await seed.readings(conn, (0, 90, device_id), trace_id=TRACE)
    await conn.execute("select evaluator.evaluate(1000)")
    query = "select alert_id from alerts where device_id = $1 and status = 'open'"
    return int(await conn.fetchval(query, device_id))


async def let_pass(conn: asyncpg.Connection, minutes: float) -> None:
    """Move every waiting row the given number of minutes into the past."""
    await conn.execute(
        "with older as (update alerts set recorded_at = recorded_at - $1 * interval '1 minute',"
        " silenced_until = silenced_until - $1 * interval '1 minute')"
        " update ops.escalations set due_at = due_at - $1 * interval '1 minute'",
        float(minutes),
    )
