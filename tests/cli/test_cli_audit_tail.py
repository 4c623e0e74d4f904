"""`pulse audit tail` at a terminal or in a pipe."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest

from tests.support.audit_pages import write
from tests.support.migrator import ROOT
from tests.support.sealer import Seal
from tests.support.wait import until

Lines = list[str]


@asynccontextmanager
async def running(url: str, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Lines]]:
    """Yield the process and the lines printed so far. Kill it at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.cli", "audit", "tail", *arguments),
        cwd="/",
        env={**inherited, "PYTHONPATH": str(ROOT), "PULSE_AUDIT_DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Shells ignore Ctrl-C in background jobs, and a test run in the background inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    lines: Lines = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(line.decode().rstrip("\n"))

    reading = asyncio.create_task(read())
    try:
        yield process, lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def run(url: str, *arguments: str) -> tuple[Lines, str, int]:
    """Return the lines, the standard error output and the exit status."""
    async with running(url, *arguments) as (process, lines):
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
        status = await asyncio.wait_for(process.wait(), 30)
    return lines, said, status


@pytest.fixture
def url(role_url: Callable[[str], str]) -> str:
    return role_url("pulse_auditor")


@pytest.mark.slow
async def test_it_shows_all_tenants_or_one_in_order_and_goes_on_where_it_stopped(
    url: str, conn: asyncpg.Connection, seal: Seal
) -> None:
    for tenant in ("acme", "other", "acme"):
        await write(conn, 2, tenant_id=tenant)
        await seal()
    everything = ("--from-beginning", "--no-follow", "--json", "--event-type", "alert.opened")
    lines, said, status = await run(url, *everything)
    events: list[dict[str, Any]] = [orjson.loads(line) for line in lines]
    assert (status, [event["tenant_id"] for event in events]) == (0, ["acme"] * 2 + ["other"] * 2 + ["acme"] * 2)
    rest, _, _ = await run(url, "--no-follow", "--json", "--event-type", "alert.opened", "--after", events[2]["cursor"])
    assert rest == lines[3:]
    mine, _, _ = await run(url, *everything, "--tenant", "other")
    assert mine == lines[2:4]
    readers = await conn.fetch("select tenant_id from audit_log where event_type = 'audit.read' order by recorded_at")
    assert [row["tenant_id"] for row in readers] == ["system", "system", "other"]
    await write(conn, 1, tenant_id="third")
    await seal()
    assert said.startswith("continue with --after ")
    new, _, _ = await run(url, "--no-follow", "--event-type", "alert.opened", "--after", said.split()[-1])
    assert [line.split("  ")[1] for line in new] == ["third"]


async def test_it_follows_and_says_at_ctrl_c_where_it_stopped(url: str, conn: asyncpg.Connection, seal: Seal) -> None:
    """The read is recorded, with the reader's identity, before the first line is printed."""
    async with running(url, "--event-type", "alert.opened") as (process, lines):

        async def recorded() -> Any:
            return await conn.fetchrow(
                "select tenant_id, actor_type, actor_id, details::text d from audit_log where event_type = 'audit.read'"
            )

        row = await until(recorded, seconds=30)
        assert (row["tenant_id"], row["actor_type"]) == ("system", "user")
        assert row["actor_id"].startswith("cli:")
        assert orjson.loads(row["d"])["filter"] == {"tenant_id": None, "event_type": "alert.opened"}

        async def followed() -> bool:
            await write(conn, 1)
            await seal()
            return len(lines) >= 3

        await until(followed)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 15) == 130
        assert process.stderr is not None
        assert b"continue with --after " in await process.stderr.read()
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'audit.read'") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--after", "x"), "--after must be a cursor"),
        (("--ip-address", "x"), "--ip-address: "),
        (("--since", "yesterday"), "--since: "),
    ],
)
async def test_what_it_cannot_use_is_one_line(url: str, arguments: tuple[str, ...], words: str) -> None:
    lines, said, status = await run(url, *arguments)
    assert (lines, status, said.count("\n")) == ([], 1, 1)
    assert words in said
