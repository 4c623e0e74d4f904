"""Every query and repair of the runbooks, as pulse_operator, during the fault."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from services.local.postgres.server import EmbeddedPostgres
from tests.support import delivery, seed
from tests.support.migrator import ROOT, Migrator
from tests.support.runbook_queries import sections
from tests.support.wait import until, until_now

RoleUrl = Callable[[str], str]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
EVENT = "select audit.write(array[audit.event(p_tenant_id => 'system', p_event_type => '{}', {})])"

# Cause of the fault and first row of the query, by section. The cases run in order in one database.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "PulseHttpErrorsBurnSlow": (
        EVENT.format("system.service_down", "p_message => 'down'"),
        {"event_type": "system.service_down", "count": 1},
    ),
    "PulseDeliveryLatencyBurnFast": (
        (
            "insert into delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome,"
            " status_code, error, duration_ms) select tenant_id, job_id, channel_id, 1, 9, 'w', 'retry', 503, 'slow',"
            " 15000 from notification_jobs limit 1"
        ),
        {"outcome": "retry", "status_code": 503, "average_ms": 15000, "an_error": "slow"},
    ),
    "PulseAuditLossBurnFast": (
        EVENT.format("audit.gap", "p_source_service => 'ui_iot', p_message => 'lost'"),
        {"source_service": "ui_iot", "message": "lost"},
    ),
    "PulseServiceUnhealthy": (
        (
            "insert into service_health (service, url, status, failures, checked_at, changed_at, error)"
            " values ('dispatcher', 'http://127.0.0.1:8083/health', 'down', 3, now(), now(), 'no answer')"
        ),
        {"service": "dispatcher", "status": "down", "failures": 3, "error": "no answer"},
    ),
    "PulseProcessRestarting": (
        "select audit.record_process('ui_iot', 'host:' || i, 'started') from generate_series(1, 5) i",
        {"source_service": "ui_iot", "event_type": "system.started"},
    ),
    "PulseQueueStuck": (
        (
            "insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value,"
            " received_at) values (1, 1, 'acme', 'boiler-1', 'temperature', now(), 1, now() - interval '5 minutes')"
        ),
        {"service": "evaluator_iot", "queue_name": "inbox", "depth": 1},
    ),
    "PulseTenantsFailing": (
        "update evaluator.inbox set received_at = now() - interval '6 minutes'",
        {"tenant_id": "acme", "readings": 1},
    ),
    "PulseTenantsBusy": (
        (
            "insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value,"
            " received_at) values (1, 2, 'acme', 'boiler-1', 'temperature', now(), 1, now())"
        ),
        {"tenant_id": "acme", "readings": 2},
    ),
    "PulseLimitRefusals": (
        (
            "insert into ops.limit_refusals (tenant_id, limit_name, shard, window_start, window_refused, refused)"
            " values ('acme', 'rules', -1, now(), 3, 3)"
        ),
        {"tenant_id": "acme", "limit_name": "rules", "refused": 3},
    ),
    "PulseDeliveryStuck": (
        "update notification_jobs set run_at = now() - interval '1 hour', last_error = 'refused'",
        {"name": "sink", "kind": "webhook", "enabled": True, "state": "pending", "an_error": "refused"},
    ),
    "PulseDeadLetters": (
        "update notification_jobs set state = 'dead', finished_at = now(), attempts = 8 where state = 'pending'",
        {"tenant_id": "acme", "attempts": 8, "last_error": "refused"},
    ),
    "PulseFleetSilent": (
        (
            "insert into device_state (tenant_id, device_id, metric, timestamp, value, received_at)"
            " values ('acme', 'boiler-1', 'temperature', now(), 1, now() - interval '1 hour')"
        ),
        {"tenant_id": "acme", "devices": 1},
    ),
    "PulseAuditUnverified": (
        (
            "select audit.record_verification('day', 4711, 0, null);"
            " update audit.verifications set verified_at = now() - interval '4 hours'"
        ),
        {"scope": "day", "row_count": 4711, "fault_count": 0},
    ),
    "PulseAuditUnguarded": (
        "alter table devices disable trigger user",
        {"table_name": "public.devices", "tgenabled": b"D"},
    ),
    "PulseAuditLayerAltered": (
        "select audit.record_verification('layer', 0, 2, 'altered routine audit.read_leaves')",
        {"fault_count": 2, "message": "altered routine audit.read_leaves"},
    ),
    "PulseSealLag": ("select audit.lease_seal('host:1', 10)", {"holder": "host:1"}),
    "PulseAttackSuspected": (
        (
            "insert into audit.attack_findings (kind, subject, first_at, last_at, failures, accounts, addresses)"
            " values ('brute_force', '192.0.2.1', now(), now(), 50, 1, 1)"
        ),
        {"kind": "brute_force", "failures": 50},
    ),
    "PulseAuthFailureSurge": (
        EVENT.format("auth.login_failure", """p_details => '{"reason": "expired"}'"""),
        {"reason": "expired", "count": 1},
    ),
    "PulseAuditQuarantined": (
        EVENT.format("audit.quarantined", "p_message => 'refused', p_source_service => 'ui_iot'"),
        {"message": "refused"},
    ),
    "PulseRetentionStalled": ("select audit.set_retention(30)", {"keep_days": 30, "last_run_at": None}),
    "PulseDefaultPartitionUsed": (
        (
            "insert into telemetry (tenant_id, timestamp, device_id, metric, value)"
            " values ('acme', '2019-03-01 12:00+00', 'boiler-1', 'temperature', 1)"
        ),
        {"table_name": "telemetry", "row_count": 1},
    ),
    "PulseDeadTuples": (
        "update notification_jobs set last_error = 'x'; select pg_stat_force_next_flush()",
        {"relname": "notification_jobs"},
    ),
    "PulseMetricMissing": ("drop view metrics.devices", {"viewname": "queue_depth"}),
}
SESSIONS = {
    "PulseHttpLatencyBurnFast",
    "PulseWorkerWithoutSuccess",
    "PulseListenerDeaf",
    "PulseNotifyQueueFilling",
    "PulseConnectionsNearLimit",
}
SERVER = {"PulseReplicationLag", "PulseReplicationSlotFilling", "PulseTransactionOld"}
REPAIRS = {
    "select ops.end_session(PID)": "tried with each session",
    "select ops.ensure_partitions()": "tried with the missing partitions",
    "vacuum notification_jobs": "tried as the owner",
    "select audit.track('public.new_name')": "tried as the owner",
    "rollback prepared 'GID'": "tried as an administrator",
    "select pg_drop_replication_slot('NAME')": "tried as an administrator",
}


@pytest.fixture
async def operator(role_url: RoleUrl) -> AsyncIterator[asyncpg.Connection]:
    """The connection of `./pulse psql`."""
    connection = await asyncpg.connect(role_url("pulse_operator"))
    yield connection
    await connection.close()


def query_of(section: str) -> str:
    """Return the only query of a section."""
    (query,) = sections()[section].queries
    return query


def test_no_query_and_no_repair_is_left_out() -> None:
    """A section with a query needs a case here."""
    assert {name for name, section in sections().items() if section.queries} == {*ROWS, *SESSIONS, *SERVER}
    assert {repair for section in sections().values() for repair in section.repairs} == set(REPAIRS)


async def test_each_query_shows_its_fault(
    conn: asyncpg.Connection, operator: asyncpg.Connection, database_url: str
) -> None:
    """The query shows the row that the runbook promises."""
    await seed.device(conn, "boiler-1")
    await delivery.job(conn, await seed.channel(conn))
    for section, (fault, expected) in ROWS.items():
        await conn.execute(fault)
        rows = [dict(row) for row in await operator.fetch(query_of(section))]
        assert any(row.items() >= expected.items() for row in rows), (section, rows)
    names = [row["viewname"] for row in await operator.fetch(query_of("PulseMetricMissing"))]
    assert "devices" not in names

    made = await operator.fetch("select ops.ensure_partitions()")
    assert made != []
    assert await operator.fetch(query_of("PulseDefaultPartitionUsed")) == []
    track = "select audit.track('public.new_name')"
    owner = await asyncpg.connect(database_url)
    await owner.execute("set role pulse_owner; create table new_name (site text primary key)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await operator.execute(track)
    await owner.execute(track)
    await owner.execute("vacuum notification_jobs")
    await owner.close()
    states = {(row["table_name"], row["tgenabled"]) for row in await operator.fetch(query_of("PulseAuditUnguarded"))}
    assert ("public.new_name", b"O") in states


class Jam:
    """A request that holds an idle lock, an ingest call that waits for it, and a worker's listener."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.holder: asyncpg.Connection = None
        self.waiting: asyncio.Task[Any] | None = None
        self._open: list[asyncpg.Connection] = []

    async def _connect(self, name: str) -> asyncpg.Connection:
        connection = await asyncpg.connect(self._url, server_settings={"application_name": name})
        self._open.append(connection)
        return connection

    async def begin(self) -> None:
        """Cause the fault and return when Postgres shows that the second call waits."""
        call = "select ingest.record_readings('acme', '{{boiler-1}}', '{{temperature}}', array[now()], '{{1}}', {})"
        self.holder = await self._connect(f"pulse-ui_iot {TRACE_ID}")
        await self.holder.execute(f"begin; {call.format(repr(TRACE_ID))}")
        waiter = await self._connect("pulse-evaluator_iot")
        self.waiting = asyncio.create_task(waiter.execute(call.format("null")))
        listener = await self._connect("pulse-dispatcher-listen")
        await listener.execute("listen pulse_dispatcher")

    async def end(self) -> None:
        """Close what is open."""
        for connection in self._open:
            connection.terminate()
        if self.waiting is not None:
            await asyncio.gather(self.waiting, return_exceptions=True)


@asynccontextmanager
async def jam(url: str, operator: asyncpg.Connection) -> AsyncIterator[Jam]:
    """Yield a jam that the operator can see."""
    made = Jam(url)
    try:
        await made.begin()
        await until(lambda: operator.fetch("select 1 from ops.sessions() where blocked_by is not null"))
        yield made
    finally:
        await made.end()


@pytest.mark.parametrize("section", sorted(SESSIONS - {"PulseListenerDeaf"}))
async def test_a_session_that_others_wait_for_is_found_and_ended(
    conn: asyncpg.Connection, operator: asyncpg.Connection, app_url: str, section: str
) -> None:
    """The query shows the session, the repair ends it, the waiting one continues, and the trail names the operator."""
    await seed.device(conn, "boiler-1")
    async with jam(app_url, operator) as fault:
        rows = await operator.fetch(query_of(section))
        assert {"pulse_app"} >= {row.get("role", "pulse_app") for row in rows} - {"postgres", "pulse_operator"}
        applications = [row["application"] for row in rows]
        assert any(name.startswith("pulse-ui_iot") for name in applications), rows
        pid = fault.holder.get_server_pid()
        if section != "PulseConnectionsNearLimit":
            assert any(row["pid"] == pid and row["state"] == "idle in transaction" for row in rows)
        if "blocked_by" in rows[0]:
            assert [row["waits_for"] for row in rows if row["blocked_by"] == [pid]] == ["Lock: transactionid"]
        assert "select ops.end_session(PID)" in sections()[section].repairs
        assert "was ended" in await operator.fetchval(f"select ops.end_session({pid})")
        assert fault.waiting is not None
        await fault.waiting
        await until(fault.holder.is_closed)
    event = await conn.fetchrow("select * from audit_log where event_type = 'system.session_ended'")
    assert (event["entity_id"], event["actor_id"]) == (str(pid), "pulse_operator")


async def test_the_listener_is_shown_and_architecture_names_the_request(
    conn: asyncpg.Connection, operator: asyncpg.Connection, app_url: str
) -> None:
    """The row has the trace id of the blocking statement."""
    await seed.device(conn, "boiler-1")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    async with jam(app_url, operator) as fault:
        found = await operator.fetch(query)
        holder = fault.holder.get_server_pid()
        assert [row["trace_id"] for row in found if row["pid"] == holder] == [TRACE_ID]
        assert [row["pid"] for row in found if row["blocked_by"] == [holder]] != []
        rows = await operator.fetch(query_of("PulseListenerDeaf"))
        assert [row["application"] for row in rows] == ["pulse-dispatcher-listen"]


async def test_ending_a_session_records_the_operator(
    conn: asyncpg.Connection, operator: asyncpg.Connection, app_url: str
) -> None:
    """The event names the claimed actor and the login."""
    session = await asyncpg.connect(app_url)
    async with operator.transaction():
        await operator.execute("select audit.act('psql:alice', 'it blocked the fleet')")
        await operator.fetchval("select ops.end_session($1)", session.get_server_pid())
    event = await conn.fetchrow("select * from audit_log where event_type = 'system.session_ended'")
    assert (event["actor_id"], event["actor_name"]) == ("psql:alice", "pulse_operator")
    session.terminate()


async def test_sessions_of_others_are_not_ended(conn: asyncpg.Connection, operator: asyncpg.Connection) -> None:
    """The answer about a foreign session names the administrator's options. Own and missing ones are errors."""
    foreign = conn.get_server_pid()
    with pytest.raises(asyncpg.PostgresError, match=f"session {foreign} belongs to postgres") as refused:
        await operator.execute(f"select ops.end_session({foreign})")
    assert refused.value.hint == f"Ask an administrator of the server: select pg_terminate_backend({foreign})"
    for pid in (operator.get_server_pid(), -1):
        with pytest.raises(asyncpg.PostgresError, match="has no other session"):
            await operator.execute(f"select ops.end_session({pid})")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await operator.execute(f"select pg_terminate_backend({foreign})")


async def test_the_readmes_queries_run_as_an_operator(conn: asyncpg.Connection, operator: asyncpg.Connection) -> None:
    """The README's psql queries return rows."""
    event_id, alert_id = 1, await delivery.alert(conn)
    await conn.execute(
        EVENT.format("auth.login_failure", """p_details => '{"reason": "expired"}', p_ip_address => '::1'""")
    )
    event_id = await conn.fetchval(
        "insert into alert_events (tenant_id, alert_id, kind, occurred_at) values ('acme', $1, 'opened', now())"
        " returning event_id",
        alert_id,
    )
    await conn.execute(
        "insert into suppressions (tenant_id, event_id, alert_id, reason) values ('acme', $1, $2, 'no_route')",
        event_id,
        alert_id,
    )
    queries = re.findall(r'\./pulse psql -- -c "([^"]+)"', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(queries) >= 3
    for query in queries:
        assert await operator.fetch(query.rstrip(";")) != [], query


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A migrated server with replication and prepared transactions."""
    with EmbeddedPostgres(tmp_path / "server") as first, psycopg.connect(first.url(), autocommit=True) as session:
        session.execute("alter system set max_prepared_transactions = 5")
    with EmbeddedPostgres(tmp_path / "server") as started:
        Migrator(started.url()).upgrade()
        yield started


@pytest.mark.slow
def test_replication_and_prepared_transactions_are_shown(server: EmbeddedPostgres, tmp_path: Path) -> None:
    """Their repairs need an administrator, as the runbook states."""
    (tmp_path / "wal").mkdir()
    with (
        psycopg.connect(server.url(), autocommit=True) as administrator,
        psycopg.connect(server.url("pulse_operator"), autocommit=True) as operator,
    ):
        administrator.execute("select pg_create_physical_replication_slot('standby_1', true)")
        administrator.execute("begin; create table kept (); prepare transaction 'left over'")
        receive = [
            str(server.bin_dir / "pg_receivewal"),
            "-D",
            str(tmp_path / "wal"),
            "-S",
            "standby_1",
            "-d",
            server.url(),
        ]
        with subprocess.Popen(receive, stderr=subprocess.DEVNULL) as receiver:
            replication = query_of("PulseReplicationLag").encode()
            (row,) = until_now(lambda: operator.execute(replication).fetchall(), seconds=30)
            assert row[1] in ("startup", "catchup", "streaming")
            receiver.terminate()
        (slot,) = operator.execute(query_of("PulseReplicationSlotFilling").encode()).fetchall()
        assert slot[0] == "standby_1"
        prepared = query_of("PulseTransactionOld").encode()
        assert [row[0] for row in operator.execute(prepared).fetchall()] == ["left over"]
        for repair in ("select pg_drop_replication_slot('standby_1')", "rollback prepared 'left over'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                operator.execute(repair.encode())
        until_now(lambda: administrator.execute("select 1 from pg_replication_slots where not active").fetchall())
        administrator.execute("select pg_drop_replication_slot('standby_1')")
        administrator.execute("rollback prepared 'left over'")
        assert operator.execute(query_of("PulseReplicationSlotFilling").encode()).fetchall() == []
        assert operator.execute(prepared).fetchall() == []
