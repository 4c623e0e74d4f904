"""One scrape is one snapshot that no bad view can break: rows move between queues next to bad views of every kind.

PULSE_TEST_SCRAPES: the number of scrapes (120).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg

from tests.support.scrape import Scraper, as_owner, exporting

RoleUrl = Callable[[str], str]

SCRAPES = int(os.environ.get("PULSE_TEST_SCRAPES", "120"))
EVERY = 40
"""Of so many scrapes one meets also the views that take time."""
MOVES = 10
"""While each scrape runs; without a limit the writers would be most of the test."""
ROWS = 120
QUEUES = ("first", "second", "third")
MOVE = "with gone as (delete from public.{0} where n % 7 = $1 returning n) insert into public.{1} select n from gone"
SESSIONS = "from pg_stat_activity where application_name = 'pulse-exporter' and datname = current_database()"
DEADLINE_SECONDS = 8.0

COUNTS = [
    f"create view metrics.rows_{queue} as select count(*) as value from public.{queue}" for queue in QUEUES
]  # fmt: skip
ALL_COUNTS = " union all ".join(f"select '{queue}' as queue, count(*) as value from public.{queue}" for queue in QUEUES)
# These stand between the counts: if their failure ended the snapshot, the counts would not agree.
BAD = {
    "divides": "select 1 / (select count(*) from public.locked where false) as value",
    "repeats": "select 'same' as label, i as value from generate_series(1, 2) i",
    "million": "select i::text as i, 1 as value from (select generate_series(1, 1000000) as i) s",
    "bad-name": "select 1 as value",
    "exporter_up": "select 1 as value",
    "rows_first_total": "select 1 as value",
}
SLOW = {
    "sleeps": "select 1 as value, case when (select slow from public.mood) then pg_sleep(60)::text end as slept",
    "waits": "select count(*) as value from public.locked",
}


async def make_views(conn: asyncpg.Connection) -> None:
    """Make the queues, their counting views and the bad ones in between; keep a few of the shipped views."""
    bad = [f'create view metrics."{name}" as {sql}' for name, sql in (*SLOW.items(), *BAD.items())]
    between = [
        statement
        for pair in zip(COUNTS, (bad[:3], bad[3:6], bad[6:]), strict=True)
        for statement in (pair[0], *pair[1])
    ]
    shipped = "select relname from pg_class where relnamespace = 'metrics'::regnamespace order by relname offset 3"
    await as_owner(
        conn,
        *(f"drop view if exists metrics.{row[0]} cascade" for row in await conn.fetch(shipped)),
        *(f"create table public.{queue} (n integer)" for queue in (*QUEUES, "locked")),
        "create table public.mood as select false as slow",
        f"insert into public.first select generate_series(1, {ROWS})",
        *between,
        f"create view metrics.rows_by_queue as {ALL_COUNTS}",
    )


@asynccontextmanager
async def moving_rows(url: str, permits: asyncio.Semaphore) -> AsyncIterator[list[int]]:
    """Yield two writers that move rows between queues, one move for each permit; the list counts the moves."""
    moves = [0, 0]

    async def move(writer: int) -> None:
        connection = await asyncpg.connect(url)
        try:
            while await permits.acquire():
                turn = moves[writer]
                here, there = QUEUES[(turn + writer) % 3], QUEUES[(turn + writer + 1) % 3]
                await connection.execute(MOVE.format(here, there), turn // 3 % 7)
                moves[writer] += 1
        finally:
            connection.terminate()

    writers = [asyncio.create_task(move(number)) for number in range(2)]
    try:
        yield moves
    finally:
        for writer in writers:
            writer.cancel()
        results = await asyncio.gather(*writers, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}


async def series_of(scraper: Scraper) -> dict[str, float]:
    """Return the values by the text of their series; full parsing would take most of the test's time."""
    answer = await scraper.client.get("/metrics")
    assert answer.status_code == 200
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    assert len({series for series, _ in lines}) == len(lines)
    return {series: float(value) for series, value in lines}


def failed(series: dict[str, float]) -> set[str]:
    """Return the names of the views that are left out."""
    start = 'pulse_exporter_view_success{view="'
    return {name[len(start) : -2] for name, value in series.items() if name.startswith(start) and not value}


async def test_sums_agree_whatever_the_others_do(
    conn: asyncpg.Connection, role_url: RoleUrl, database_url: str
) -> None:
    """In every scrape each row is in one queue, only the bad views are missing, and the deadline holds."""
    await make_views(conn)
    seen = set()
    settings = {"exporter_view_timeout_seconds": 0.5, "exporter_deadline_seconds": DEADLINE_SECONDS}
    permits = asyncio.Semaphore(0)
    async with (
        exporting(role_url("pulse_exporter"), **settings) as scraper,
        moving_rows(database_url, permits) as moves,
    ):
        for number in range(SCRAPES):
            slow = number % EVERY == 0
            if slow:
                await conn.execute("update public.mood set slow = true")
                await conn.execute("begin; lock table public.locked in access exclusive mode")
            for _ in range(MOVES):
                permits.release()
            series = await series_of(scraper)
            if slow:
                await conn.execute("rollback; update public.mood set slow = false")
                # No session holds back vacuum, even after views were canceled.
                assert await conn.fetch(f"select state {SESSIONS}") == [("idle",)]
            assert failed(series) == BAD.keys() | (SLOW.keys() if slow else set())
            counts = tuple(series[f"pulse_rows_{queue}"] for queue in QUEUES)
            assert counts == tuple(series[f'pulse_rows_by_queue{{queue="{queue}"}}'] for queue in QUEUES)
            assert sum(counts) == ROWS
            assert series["pulse_exporter_up"] == 1
            assert series["pulse_exporter_scrape_duration_seconds"] < DEADLINE_SECONDS
            assert {name for name in series if name.split("{")[0] in {f"pulse_{bad}" for bad in BAD}} == {
                "pulse_exporter_up"
            }
            seen.add(counts)
        # Without these checks the sums would prove nothing: rows did move, and scrapes saw them in different places.
        assert min(moves) > SCRAPES
        assert len(seen) > 3
