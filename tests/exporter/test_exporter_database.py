"""The exporter while its database is away, hangs, restarts, changes, or is read by many at once."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from exporter import collector
from exporter.deadline import Deadline
from exporter.link import Link
from tests.support.postgres_server import PASSWORD, Server
from tests.support.scrape import OPENMETRICS, as_owner, exporting
from tests.support.wait import until

RoleUrl = Callable[[str], str]

SESSIONS = "from pg_stat_activity where application_name = 'pulse-exporter' and datname = current_database()"
GATE = 7_318_008


class Relay:
    """A TCP relay to the server that can stall its connections without closing them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._flows: list[asyncio.Event] = []
        self._pipes: list[asyncio.Task[None]] = []
        self._open = True

    def hang(self, *, new_ones: bool) -> None:
        """Stop forwarding on the open connections and, with `new_ones`, on later ones."""
        for flow in self._flows:
            flow.clear()
        self._open = not new_ones

    def resume(self) -> None:
        """Forward all bytes again."""
        self._open = True
        for flow in self._flows:
            flow.set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect a client's connection to the server."""
        if self._server.host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{self._server.host}/.s.PGSQL.{self._server.port}")
        else:
            there = await asyncio.open_connection(self._server.host, int(self._server.port))
        flow = asyncio.Event()
        if self._open:
            flow.set()
        self._flows.append(flow)
        self._pipes.append(asyncio.create_task(self._pump(reader, there[1], flow)))
        self._pipes.append(asyncio.create_task(self._pump(there[0], writer, flow)))

    async def close(self) -> None:
        """Close all connections."""
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: asyncio.Event) -> None:
        try:
            while data := await reader.read(65536):
                await flow.wait()
                writer.write(data)
        finally:
            writer.close()


@asynccontextmanager
async def relaying(server: Server, database: str) -> AsyncIterator[tuple[str, Relay]]:
    """Yield a relay and the URL by which the exporter's role reaches the database through it."""
    relay = Relay(server)
    listener = await asyncio.start_server(relay.connect, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://pulse_exporter:{PASSWORD}@127.0.0.1:{port}/{database}?sslmode=disable", relay
    finally:
        listener.close()
        await relay.close()


@asynccontextmanager
async def closed_gate(conn: asyncpg.Connection) -> AsyncIterator[None]:
    """Make the view `gate` wait while the context lasts; the server counts the reads of public.counted."""
    await conn.execute("create table public.counted (n integer); grant select on public.counted to pulse_owner")
    await as_owner(
        conn,
        f"""create view metrics.gate as
              select count(*) as value from public.counted
              where (select pg_advisory_xact_lock_shared({GATE})) is not null or n is null""",
    )
    await conn.execute("insert into public.counted values (null)")
    await conn.execute("select pg_advisory_lock($1)", GATE)
    try:
        yield
    finally:
        await conn.execute("select pg_advisory_unlock($1)", GATE)


async def waiting_at_gate(conn: asyncpg.Connection) -> bool:
    """Return whether a session waits for the gate to open."""
    query = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
    return bool(await conn.fetchval(query))


async def test_a_missing_database_is_said_and_nothing_else(
    role_url: RoleUrl, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """HTTP 200, pulse_exporter_up 0, no view; the process's own metrics, and one log line with the reason."""
    url = f"postgresql://pulse_exporter@127.0.0.1:{unused_tcp_port}/pulse"
    async with exporting(url) as scraper:
        for _ in range(2):
            found = await scraper.scrape()
            assert found.value("pulse_exporter_up") == 0
            assert found.views() == {}
            assert "pulse_queue_depth" not in found.names()
            assert "pulse_exporter_scrape_duration_seconds" in found.names()
            assert found.value("process_open_fds") is not None
        assert (await scraper.client.get("/livez")).status_code == 200
        assert (await scraper.client.get("/readyz")).status_code == 503
        health = (await scraper.client.get("/health")).json()
        assert (health["status"], health["service"], health["counters"]["errors"]) == ("degraded", "exporter", 2)
    assert [record.message for record in caplog.records if record.name == "exporter.collector"] == [
        "the database cannot be read"
    ]


async def test_a_refused_login_is_a_missing_database(role_url: RoleUrl) -> None:
    """A role that may not log in gives up 0, not an error page."""
    async with exporting(role_url("pulse_owner")) as scraper:
        found = await scraper.scrape()
        assert (found.value("pulse_exporter_up"), found.views()) == (0, {})


async def test_a_lost_connection_costs_no_scrape(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """After a restart of the server the first scrape reconnects; no old value is served meanwhile."""
    async with exporting(role_url("pulse_exporter")) as scraper:
        assert (await scraper.scrape()).value("pulse_exporter_up") == 1
        first = await conn.fetchval(f"select pid {SESSIONS}")
        await conn.execute("select pg_terminate_backend($1)", first)
        await until(lambda: conn.fetchval(f"select not exists (select {SESSIONS})"))
        found = await scraper.scrape()
        assert found.value("pulse_exporter_up") == 1
        assert set(found.views().values()) == {True}
        assert await conn.fetchval(f"select pid {SESSIONS}") != first


async def test_a_hanging_network_is_bounded(conn: asyncpg.Connection, pg_server: Server) -> None:
    """Bytes that never arrive, neither on the open connection nor on a new one, end in up 0 within the deadline."""
    database = await conn.fetchval("select current_database()")
    async with (
        relaying(pg_server, database) as (url, relay),
        exporting(url, exporter_connect_timeout_seconds=0.3, exporter_deadline_seconds=5.0) as scraper,
    ):
        assert (await scraper.scrape()).value("pulse_exporter_up") == 1
        relay.hang(new_ones=True)
        before = asyncio.get_running_loop().time()
        found = await scraper.scrape()
        assert (found.value("pulse_exporter_up"), found.views()) == (0, {})
        # Two waits for an answer, on the open and on a new connection, instead of the whole deadline.
        assert asyncio.get_running_loop().time() - before < 2.5
        assert (await scraper.client.get("/readyz")).status_code == 503
        relay.resume()

        async def sees() -> bool:
            return (await scraper.scrape()).value("pulse_exporter_up") == 1

        await until(sees)
        assert (await scraper.client.get("/readyz")).status_code == 200


async def test_a_silently_dead_connection_costs_no_scrape(conn: asyncpg.Connection, pg_server: Server) -> None:
    """A firewall dropped the open connection: the scrape notices it, opens another and is answered."""
    database = await conn.fetchval("select current_database()")
    async with (
        relaying(pg_server, database) as (url, relay),
        exporting(url, exporter_connect_timeout_seconds=0.3, exporter_deadline_seconds=5.0) as scraper,
    ):
        assert (await scraper.scrape()).value("pulse_exporter_up") == 1
        relay.hang(new_ones=False)
        assert (await scraper.scrape()).value("pulse_exporter_up") == 1


async def test_a_network_that_hangs_within_a_pass_is_bounded(conn: asyncpg.Connection, pg_server: Server) -> None:
    """The client's own clock ends a pass that the server's timeouts cannot end, and no half pass is served."""
    database = await conn.fetchval("select current_database()")
    async with (
        relaying(pg_server, database) as (url, relay),
        exporting(url, exporter_deadline_seconds=0.8, exporter_view_timeout_seconds=20) as scraper,
        closed_gate(conn),
    ):
        pending = asyncio.create_task(scraper.scrape())
        await until(lambda: waiting_at_gate(conn))
        relay.hang(new_ones=True)
        found = await pending
        assert (found.value("pulse_exporter_up"), found.views()) == (0, {})
        # The pass itself has ended, not only the scraper's wait.
        await until(lambda: scraper.process.counters["errors"] == 1, seconds=2)


async def test_fifty_scrapes_at_once_are_one_pass(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Scrapers that join a running pass get its answer in their own format: the server counts one read, not fifty."""
    reads = "select seq_scan from pg_stat_user_tables where relname = 'counted'"
    formats = ("", OPENMETRICS, "text/plain; version=0.0.4", "*/*", "application/openmetrics-text")
    async with exporting(role_url("pulse_exporter"), exporter_view_timeout_seconds=20) as scraper:
        async with closed_gate(conn):
            await conn.execute("select pg_stat_clear_snapshot()")
            scrapes = [
                asyncio.create_task(scraper.client.get("/metrics", headers={"accept": accept}))
                for accept in formats * 10
            ]
            await until(lambda: waiting_at_gate(conn))
        answers = await asyncio.gather(*scrapes)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 2
        assert [answer.text.endswith("# EOF\n") for answer in answers] == [
            "openmetrics" in name for name in formats
        ] * 10
        assert {"pulse_gate 1.0" in answer.text for answer in answers} == {True}
        assert scraper.process.counters["passes"] == 1
    # A session reports its counts when it ends.
    await until(lambda: conn.fetchval(f"select not exists (select {SESSIONS})"))
    assert await until(lambda: conn.fetchval(reads)) == 1


async def test_a_scraper_that_leaves_does_not_end_the_pass_of_the_others(
    conn: asyncpg.Connection, role_url: RoleUrl
) -> None:
    """The request that began the pass is canceled; the one that joined it is answered. A killed session ends it."""
    async with exporting(role_url("pulse_exporter"), exporter_view_timeout_seconds=20) as scraper:
        async with closed_gate(conn):
            first, second = (asyncio.create_task(scraper.scrape()) for _ in range(2))
            await until(lambda: waiting_at_gate(conn))
            first.cancel()
        assert (await second).value("pulse_gate") == 1
        assert scraper.process.counters["passes"] == 1

        await conn.execute("select pg_advisory_lock($1)", GATE)
        third = asyncio.create_task(scraper.scrape())
        await until(lambda: waiting_at_gate(conn))
        await conn.execute(f"select pg_terminate_backend(pid) {SESSIONS}")
        found = await third
        # Views read before the kill are not served either, because the snapshot is incomplete.
        assert (found.value("pulse_exporter_up"), found.views(), found.value("pulse_queue_depth")) == (0, {}, None)
        assert found.value("process_open_fds") is not None
        await conn.execute("select pg_advisory_unlock($1)", GATE)
        assert set((await scraper.scrape()).views().values()) == {True}


async def test_a_joined_pass_cannot_hold_an_impatient_scraper(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """A scraper with less time than the running pass needs gets up 0 in time; the pass continues for the others."""
    async with exporting(role_url("pulse_exporter"), exporter_view_timeout_seconds=20) as scraper:
        async with closed_gate(conn):
            patient = asyncio.create_task(scraper.scrape())
            await until(lambda: waiting_at_gate(conn))
            hasty = await scraper.scrape(**{"x-prometheus-scrape-timeout-seconds": "0.7"})
            assert (hasty.value("pulse_exporter_up"), hasty.views()) == (0, {})
        assert (await patient).value("pulse_exporter_up") == 1


async def test_a_hasty_scraper_cannot_shorten_the_pass_of_a_patient_one(
    conn: asyncpg.Connection, role_url: RoleUrl
) -> None:
    """The pass that the hasty scraper began continues for the patient one, with time for every view."""
    async with exporting(role_url("pulse_exporter"), exporter_view_timeout_seconds=20) as scraper:
        await scraper.scrape()
        async with closed_gate(conn):
            hasty = asyncio.create_task(scraper.scrape(**{"x-prometheus-scrape-timeout-seconds": "0.4"}))
            await until(lambda: waiting_at_gate(conn))
            patient = asyncio.create_task(scraper.scrape())
            assert (await hasty).value("pulse_exporter_up") == 0
        found = await patient
        assert set(found.views().values()) == {True}
        assert (found.value("pulse_gate"), scraper.process.counters["passes"]) == (1, 2)


async def test_a_scraper_after_the_time_of_a_hasty_pass_gets_another(
    conn: asyncpg.Connection, role_url: RoleUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scraper that arrives at a pass's end does not miss the views that the pass had no time for."""
    ending, may_end = asyncio.Event(), asyncio.Event()
    end = Link.end

    async def end_when_allowed(link: Link, statements: str) -> None:
        ending.set()
        await may_end.wait()
        await end(link, statements)

    async with exporting(role_url("pulse_exporter"), exporter_view_timeout_seconds=20) as scraper:
        await scraper.scrape()
        monkeypatch.setattr(Link, "end", end_when_allowed)
        async with closed_gate(conn):
            hasty = asyncio.create_task(scraper.scrape(**{"x-prometheus-scrape-timeout-seconds": "0.4"}))
            await ending.wait()
            patient = asyncio.create_task(scraper.collector.scrape(9.0))
            await asyncio.sleep(0)  # it has asked
            may_end.set()
            assert (await hasty).views()["gate"] is False
        assert (await patient).refused == {}


async def test_the_longest_pass_is_a_bound() -> None:
    """Scrapers that join one after the other cannot keep a pass, and its snapshot, for ever."""
    deadline = Deadline(1.0, longest=9.0)
    deadline.put_off(3.0)
    assert 2 < deadline.left() <= 3
    deadline.put_off(1.0)
    assert 2 < deadline.left() <= 3
    for _ in range(3):
        deadline.put_off(100.0)
        assert 8 < deadline.left() <= 9


async def test_what_a_view_does_to_the_session_ends_with_the_pass(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """A view that calls set_config leaves the next pass of the same session the settings of the role."""
    zone = "current_setting('timezone') as zone, current_setting('transaction_isolation') as isolation"
    await as_owner(
        conn,
        f"create view metrics.session as select pg_backend_pid()::text as pid, {zone}, 1 as value",
        "create view metrics.meddling as select set_config('timezone', 'Asia/Kolkata', false) as zone, 1 as value",
    )
    async with exporting(role_url("pulse_exporter")) as scraper:
        before = (await scraper.scrape()).series("pulse_session", "pid", "zone", "isolation")
        assert [(zone == "Asia/Kolkata", isolation) for _, zone, isolation in before] == [(False, "repeatable read")]
        await as_owner(conn, "drop view metrics.meddling")
        assert (await scraper.scrape()).series("pulse_session", "pid", "zone", "isolation") == before


async def test_without_prepared_statements(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Behind a pooler in transaction mode no statement is prepared, and every view is still served."""
    counting = "create view metrics.prepared as select count(*) as value from pg_prepared_statements"
    await as_owner(conn, counting)
    async with exporting(role_url("pulse_exporter"), statement_cache_size=0) as scraper:
        for found in [await scraper.scrape() for _ in range(3)]:
            assert set(found.views().values()) == {True}
            assert found.value("pulse_prepared") == 0


async def test_a_large_answer_does_not_stall_the_loop(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """60,000 samples are composed and rendered outside the loop's thread, measured by each thread's processor time."""
    await as_owner(
        conn,
        *(
            f"create view metrics.wide_{n} as select 'label ' || i as label, i as value from generate_series(1, 5000) i"
            for n in range(12)
        ),
    )
    async with exporting(role_url("pulse_exporter"), exporter_max_rows=5000) as scraper:
        gc.disable()  # what other tests left in memory would be looked through in the thread of the loop
        try:
            in_loop, in_all = time.thread_time(), time.process_time()
            answer = await scraper.client.get("/metrics")
            in_loop, in_all = time.thread_time() - in_loop, time.process_time() - in_all
        finally:
            gc.enable()
    assert answer.text.count("\npulse_wide_") == 60_000
    # The loop only receives the rows and sends the text.
    assert in_loop < in_all / 2


async def test_the_role_reads_the_views_and_nothing_else(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """No table, other view, function of ours, large object or write is allowed: checked over the whole catalog.

    tests/sql/test_privileges.py checks the grants by name, and that the role is a member of no other.
    """
    foreign = "n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'"
    readable = f"""
      select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and {foreign}
         and has_schema_privilege('pulse_exporter', n.oid, 'usage')
         and has_any_column_privilege('pulse_exporter', c.oid, 'select, insert, update, references')
       order by 1"""
    views = "select 'metrics.' || relname from pg_class where relnamespace = 'metrics'::regnamespace order by 1"
    found = [row[0] for row in await conn.fetch(readable)]
    assert found == [row[0] for row in await conn.fetch(views)]
    assert len(found) >= 10
    callable_ = f"""
      select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
       where {foreign} and has_schema_privilege('pulse_exporter', n.oid, 'usage')
         and has_function_privilege('pulse_exporter', p.oid, 'execute')"""
    assert await conn.fetch(callable_) == []
    # In the system's own schemas it has the rights of PUBLIC, and these were not widened.
    system = """
      select c.oid::regclass::text from pg_class c
       where c.relnamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
         and has_any_column_privilege('pulse_exporter', c.oid, 'insert, update, references')
      union all
      select p.oid::regprocedure::text from pg_proc p
       where p.proname in ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'lo_import', 'lo_export', 'pg_stat_file')
         and has_function_privilege('pulse_exporter', p.oid, 'execute')"""
    assert [row[0] for row in await conn.fetch(system)] == ["pg_settings"]  # whose update is `set`
    large = await conn.fetchval("select lo_from_bytea(0, 'secret')")
    # The limit counts the sessions of the whole server, including those that other tests have just left.
    others = "from pg_stat_activity where usename = 'pulse_exporter'"
    await until(lambda: conn.fetchval(f"select not exists (select {others})"))
    exporter = await asyncpg.connect(role_url("pulse_exporter"))
    try:
        for statement in (
            "select * from public.tenants",
            "select * from public.audit_log",
            "select * from api.queues",
            "select * from pg_authid",
            "select core.now()",
            f"select lo_get({large})",
            "create table metrics.mine (n integer)",
            "create temp table mine (n integer)",
        ):
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
                await exporter.execute(statement)
        second = await asyncpg.connect(role_url("pulse_exporter"))
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(role_url("pulse_exporter"))
        await second.close()
    finally:
        await exporter.close()


async def test_the_exporter_logs_what_is_wrong_and_what_is_mended(
    conn: asyncpg.Connection, role_url: RoleUrl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line when a view starts to fail, one when it recovers."""
    await as_owner(conn, "create view metrics.moody as select 1 / 0 as value")
    async with exporting(role_url("pulse_exporter")) as scraper:
        with caplog.at_level(logging.INFO, logger="exporter"):
            await scraper.scrape()
            await scraper.scrape()
            monkeypatch.setattr(collector, "GRACE_SECONDS", 20.0)  # in which even a busy machine reads the catalog
            # A scrape without any time logs one line, however many views it skips, and changes no view's state.
            hasty = await scraper.scrape(**{"x-prometheus-scrape-timeout-seconds": "0.001"})
            assert not any(hasty.views().values())
            await as_owner(conn, "create or replace view metrics.moody as select 1 / 1 as value")
            await scraper.scrape()
    lines = [(record.levelname, record.message) for record in caplog.records if record.name == "exporter.collector"]
    assert lines == [
        ("WARNING", "view left out"),
        ("WARNING", "views left out"),
        ("INFO", "view served again, or gone"),
    ]
