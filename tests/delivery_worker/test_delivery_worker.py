"""The delivery worker in this process, against a real database and real servers."""

import asyncio
import base64
import hashlib
import hmac
import logging
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from pydantic import ValidationError

from services.delivery_worker import channels
from services.delivery_worker.channels.outcome import Outcome
from services.shared import tracing
from services.shared.logging import JsonFormatter
from services.shared.settings import DeliverySettings
from tests.support import seed
from tests.support.connections import connections
from tests.support.delivery import alert, expire_leases, job, make_due, states
from tests.support.delivery_process import KEY, SECRET, Start, claiming
from tests.support.receiver import Receiver
from tests.support.wait import until

URL = "postgresql://unused"


async def webhook(conn: asyncpg.Connection, receiver: Receiver, name: str = "sink", **config: Any) -> int:
    """Return a webhook channel to the receiver."""
    configuration = {"url": f"{receiver.url}/in/hush-hush-hush", "secret": SECRET, **config}
    return await seed.channel(conn, name, config=orjson.dumps(configuration).decode())


async def settled(conn: asyncpg.Connection, *wanted: str) -> bool:
    """Return whether every job is in one of these states."""
    return set((await states(conn)).values()) <= set(wanted)


async def outcomes(conn: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """Outcome, status and error of every attempt, in order."""
    rows = await conn.fetch("select outcome, status_code, error from delivery_attempts order by attempt_id")
    return [tuple(row) for row in rows]


async def test_a_job_becomes_one_signed_request(
    conn: asyncpg.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The headers, the attempt, the audit event and the log line carry the row's trace."""
    caplog.set_level(logging.INFO)
    async with Receiver() as receiver:
        number = await job(conn, await webhook(conn, receiver))
        worker = await start()
        assert await worker.claim() == 1
        assert await worker.claim() == 0
        await until(lambda: settled(conn, "delivered"))
        (request,) = receiver.requests
    key = await conn.fetchval("select idempotency_key from notification_jobs")
    assert request.header("webhook-id") == str(key)
    assert request.header("x-trace-id") == "a" * 32
    traceparent = request.header("traceparent") or ""
    span_id = await conn.fetchval(
        "select core.span_id(trace_id, 'attempt', job_id || ':' || attempt) from delivery_attempts"
    )
    assert traceparent == f"00-{'a' * 32}-{span_id}-01"
    signed = f"{key}.{request.header('webhook-timestamp')}.".encode() + request.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert request.header("webhook-signature") == f"v1,{expected}"
    assert request.json()["data"]["alert"]["alert_id"] == await conn.fetchval("select alert_id from alerts")
    assert await outcomes(conn) == [("delivered", 200, None)]
    for table in ("delivery_attempts", "audit_log where category = 'delivery'"):
        assert await conn.fetchval(f"select trace_id from {table}") == "a" * 32
    (record,) = [record for record in caplog.records if record.message.startswith("notification")]
    line = vars(record)
    assert (line["message"], line["job_id"], line["state"], line["attempt"]) == (
        "notification delivered",
        number,
        "delivered",
        1,
    )
    assert (worker.observed("send"), worker.observed("finish")) == (1, 1)


async def test_the_log_line_of_an_attempt_has_the_span_of_its_request(conn: asyncpg.Connection, start: Start) -> None:
    """Log and receiver name the same span. Nothing leaks into the caller's context."""
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(orjson.loads(formatter.format(record)))

    formatter, handler, logger = JsonFormatter("delivery_worker"), Keep(), logging.getLogger("services.delivery_worker")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        async with Receiver() as receiver:
            await job(conn, await webhook(conn, receiver))
            worker = await start()
            await worker.claim()
            await until(lambda: settled(conn, "delivered"))
            (line,) = await until(lambda: [line for line in lines if "outcome" in line])
            assert receiver.requests[0].header("traceparent") == f"00-{line['trace_id']}-{line['span_id']}-01"
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert line["trace_id"] == "a" * 32
    assert tracing.current() is None


async def test_open_and_close_arrive_in_order_though_the_open_is_tried_again(
    conn: asyncpg.Connection, start: Start
) -> None:
    """The end never arrives before the beginning."""
    async with Receiver() as receiver:
        channel, trouble = await webhook(conn, receiver), await alert(conn)
        await job(conn, channel, alert_id=trouble)
        await job(conn, channel, alert_id=trouble, kind="closed")
        receiver.answers += [500, 503]
        worker = await start(delivery_backoff_seconds=0.01)
        async with claiming(worker):
            await until(lambda: settled(conn, "delivered"))
        types = [request.json()["type"] for request in receiver.requests]
        assert types == ["alert.opened", "alert.opened", "alert.opened", "alert.closed"]
        keys = [request.header("webhook-id") for request in receiver.requests]
        assert len(set(keys[:3])) == 1
        assert keys[3] != keys[0]


async def test_a_retry_that_is_due_before_the_next_poll_wakes_the_claim(conn: asyncpg.Connection, start: Start) -> None:
    """No notification comes when the back-off is over."""
    async with Receiver() as receiver:
        receiver.default = 500
        await job(conn, await webhook(conn, receiver))
        worker = await start(delivery_backoff_seconds=0.01, poll_seconds=3600)
        assert worker.claim_loop.wake is not None
        await worker.claim()
        await until(worker.claim_loop.wake.is_set)
        assert await conn.fetchval("select run_at <= now() from notification_jobs")


async def test_retry_after_pauses_the_channel(conn: asyncpg.Connection, start: Start) -> None:
    """One 429 delays all jobs of the channel, and no other job."""
    async with Receiver() as busy, Receiver() as other:
        channel = await webhook(conn, busy, "busy")
        busy.answers.append((429, {"retry-after": "600"}, b"slow down"))
        await job(conn, channel)
        worker = await start()
        await worker.claim()
        await until(lambda: conn.fetchval("select count(*) from delivery.lanes"))
        await job(conn, channel)
        await job(conn, await webhook(conn, other, "other"))
        assert await worker.claim() == 1
        await until(lambda: conn.fetchval("select count(*) = 1 from notification_jobs where state = 'delivered'"))
        assert (len(busy.requests), len(other.requests)) == (1, 1)
        await make_due(conn)
        assert await worker.claim() == 1
        await until(lambda: conn.fetchval("select count(*) = 2 from notification_jobs where state = 'delivered'"))
        assert await worker.claim() == 1
        await until(lambda: settled(conn, "delivered"))
        assert len(busy.requests) == 3


async def test_an_absurd_retry_after_is_cut(conn: asyncpg.Connection, start: Start) -> None:
    """The setting limits any value."""
    async with Receiver() as receiver:
        receiver.default = (429, {"retry-after": "9" * 40}, b"")
        await job(conn, await webhook(conn, receiver))
        worker = await start(delivery_retry_after_max_seconds=100)
        await worker.claim()
        await until(lambda: conn.fetchval("select count(*) from delivery.lanes"))
        pause = "select extract(epoch from paused_until - paused_at)::float8 from delivery.lanes"
        assert 90 < await conn.fetchval(pause) <= 100


async def test_a_deploy_of_the_receiver_costs_no_notification(conn: asyncpg.Connection, start: Start) -> None:
    """It refuses requests in every way for a minute and then accepts the job."""
    refusals = [404, 401, 403, 405, 409, 301, 503]
    async with Receiver() as receiver:
        receiver.answers.extend(refusals)
        await job(conn, await webhook(conn, receiver))
        worker = await start(delivery_backoff_seconds=0.001)
        async with claiming(worker):
            await until(lambda: settled(conn, "delivered"))
        assert len(receiver.requests) == 8
    assert [status for _outcome, status, _error in await outcomes(conn)] == [*refusals, 200]


@pytest.mark.slow
async def test_a_limited_receiver_gets_one_probe_a_window(conn: asyncpg.Connection, start: Start) -> None:
    """It accepts one request per window, as Slack does. Each window has hardly more than one refusal."""
    window, jobs = 0.05, 60
    async with Receiver() as receiver:
        channel = await webhook(conn, receiver)
        numbers = [await job(conn, channel) for _ in range(jobs)]
        taken: list[str | None] = []
        free_at = 0.0

        async def limit(writer: asyncio.StreamWriter) -> None:
            nonlocal free_at
            now = asyncio.get_running_loop().time()
            if now < free_at:
                head = f"HTTP/1.1 429 slow\r\nretry-after: {window}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            else:
                free_at = now + window
                taken.append(receiver.requests[-1].header("webhook-id"))
                head = "HTTP/1.1 200 ok\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()

        receiver.default = limit
        workers = [await start(), await start()]
        async with claiming(*workers):
            await until(lambda: settled(conn, "delivered"), seconds=60)
        refused = len(receiver.requests) - jobs
        assert refused <= jobs + 2 * 8
    rows = await conn.fetch("select idempotency_key::text as key, attempts from notification_jobs order by job_id")
    assert len(rows) == len(numbers)
    assert {row["attempts"] for row in rows} == {1}
    # Concurrent requests may overtake each other, but none is left.
    places = {row["key"]: place for place, row in enumerate(rows)}
    assert max(abs(places[key or ""] - place) for place, key in enumerate(taken)) <= 16


async def test_the_last_attempt_ends_in_the_dead_letters(
    conn: asyncpg.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Every attempt is a row. The last one is logged as an error."""
    async with Receiver() as receiver:
        receiver.default = (503, {}, b"away")
        await job(conn, await webhook(conn, receiver), max_attempts=3)
        worker = await start(delivery_backoff_seconds=0.01)
        async with claiming(worker):
            await until(lambda: settled(conn, "dead"))
        assert len(receiver.requests) == 3
    assert await outcomes(conn) == [("retry", 503, "HTTP 503: away")] * 3
    found = [vars(record)["state"] for record in caplog.records if "outcome" in vars(record)]
    assert found == ["pending", "pending", "dead"]
    assert caplog.records[-1].levelno == logging.ERROR


async def test_a_refusal_is_not_tried_again(conn: asyncpg.Connection, start: Start) -> None:
    """The receiver, the address check, the configuration or the notification may cause the refusal."""
    async with Receiver() as receiver:
        receiver.default = 422
        await job(conn, await webhook(conn, receiver, "picky"))
        private = await webhook(conn, receiver, "private", url="https://10.0.0.1/hush-hush-hush")
        await job(conn, private)
        await job(conn, await webhook(conn, receiver, "odd", tokne="hush-hush-hush"))
        broken = await job(conn, await webhook(conn, receiver, "broken"))
        await conn.execute('update notification_jobs set payload = \'{"kind": "opened"}\' where job_id = $1', broken)
        worker = await start()
        assert await worker.claim() == 4
        await until(lambda: settled(conn, "dead"))
        assert len(receiver.requests) == 1
    rows = await conn.fetch("select last_error from notification_jobs order by job_id")
    errors = [row["last_error"] for row in rows]
    assert errors[:3] == [
        "HTTP 422: ok",
        "The address is not a public one.",
        "the channel's configuration cannot work: tokne: Extra inputs are not permitted",
    ]
    assert errors[3].startswith("the notification is not valid: tenant_id: Field required")


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_workers_together_deliver_each_job_once(conn: asyncpg.Connection, start: Start, workers: int) -> None:
    """There are as many requests as jobs, each with its own key, for any number of workers."""
    async with Receiver() as receiver:
        channels = [await webhook(conn, receiver, f"c{number}") for number in range(3)]
        for number in range(60):
            await job(conn, channels[number % 3])
        started = [await start(delivery_concurrency=5, delivery_channel_concurrency=3) for _ in range(workers)]
        async with claiming(*started):
            await until(lambda: settled(conn, "delivered"), seconds=30)
        keys = [request.header("webhook-id") for request in receiver.requests]
        assert (len(keys), len(set(keys))) == (60, 60)
        assert receiver.at_once <= 9


async def test_a_receiver_that_hangs_delays_no_other(conn: asyncpg.Connection, start: Start) -> None:
    """It holds at most one channel's slots while other notifications are sent and recorded."""
    async with Receiver() as hanging, Receiver() as healthy:
        hanging.hold.clear()
        slow, fast = await webhook(conn, hanging, "slow"), await webhook(conn, healthy, "fast")
        for _ in range(10):
            await job(conn, slow)
        worker = await start(delivery_concurrency=3, delivery_channel_concurrency=2)
        async with claiming(worker):
            await until(lambda: len(hanging.requests) == 2)
            for _ in range(20):
                await job(conn, fast)
            query = "select count(*) from notification_jobs where channel_id = $1 and state = 'delivered'"
            await until(lambda: conn.fetchval(query + " having count(*) = 20", fast))
            assert len(hanging.requests) == 2
            hanging.hold.set()
            await until(lambda: settled(conn, "delivered"))
        assert hanging.at_once == 2


async def test_a_full_worker_waits_for_a_slot(conn: asyncpg.Connection, start: Start) -> None:
    """The pass continues as soon as a request ends, and returns at once when the process stops."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        channel = await webhook(conn, receiver)
        for _ in range(2):
            await job(conn, channel)
        worker = await start(delivery_concurrency=1)
        assert await worker.claim() == 1
        await until(lambda: len(receiver.requests) == 1)
        waiting = asyncio.ensure_future(worker.claim())
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()
        receiver.hold.set()
        assert await asyncio.wait_for(waiting, 5) == 1
        await until(lambda: settled(conn, "delivered"))
        receiver.hold.clear()
        await job(conn, channel)
        assert await worker.claim() == 1
        waiting = asyncio.ensure_future(worker.claim())
        worker.process.stopping = True
        assert await asyncio.wait_for(waiting, 5) == 0


async def test_a_job_holds_its_slot_until_its_outcome_is_recorded(
    conn: asyncpg.Connection, start: Start, database_url: str
) -> None:
    """A crash leaves at most as many unknown attempts as slots, however slow the database is."""
    async with Receiver() as receiver, connections(database_url) as connect:
        channel = await webhook(conn, receiver)
        for _ in range(4):
            await job(conn, channel)
        worker = await start(delivery_concurrency=2)
        holder = await connect()
        async with holder.transaction():
            await holder.execute("lock table delivery_attempts in share mode")
            assert await worker.claim() == 2
            await until(lambda: worker.observed("send") == 2)
            waiting = asyncio.ensure_future(worker.claim())
            await asyncio.wait([waiting], timeout=0.3)
            assert not waiting.done()
        claimed = await waiting
        while claimed < 2:
            claimed += await worker.claim()
        await until(lambda: settled(conn, "delivered"))
        assert len(receiver.requests) == 4


async def test_no_transaction_is_open_while_a_receiver_thinks(conn: asyncpg.Connection, start: Start) -> None:
    """A slow receiver must not hold rows, snapshots or connections."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        await job(conn, await webhook(conn, receiver))
        worker = await start()
        await worker.claim()
        await until(lambda: len(receiver.requests) == 1)
        query = (
            "select state from pg_stat_activity where datname = current_database() and usename = 'pulse_app'"
            " and state <> 'idle'"
        )
        assert await conn.fetch(query) == []
        receiver.hold.set()
        await until(lambda: settled(conn, "delivered"))


async def test_a_worker_that_lost_its_lease_changes_nothing(
    conn: asyncpg.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Another worker delivered meanwhile with the same webhook-id. The late answer is only logged."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        await job(conn, await webhook(conn, receiver))
        slow, fresh = await start(), await start()
        assert await slow.claim() == 1
        await until(lambda: len(receiver.requests) == 1)
        await expire_leases(conn)
        assert await fresh.reap() == 1
        await make_due(conn)
        assert await fresh.claim() == 1
        await until(lambda: len(receiver.requests) == 2)
        receiver.hold.set()
        await until(lambda: [r for r in caplog.records if r.message == "attempt ended after its lease was lost"])
        await until(lambda: settled(conn, "delivered"))
        first, second = (request.header("webhook-id") for request in receiver.requests)
        assert first == second
    assert [outcome for outcome, _status, _error in await outcomes(conn)] == ["unknown", "delivered"]


async def test_a_reaped_job_waits_for_the_configured_back_off(conn: asyncpg.Connection, start: Start) -> None:
    """An expired lease is a failed attempt, so PULSE_DELIVERY_BACKOFF_* applies."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        await job(conn, await webhook(conn, receiver))
        gone = await start()
        reaper = await start(delivery_backoff_seconds=1e6, delivery_backoff_max_seconds=2e6)
        assert await gone.claim() == 1
        await expire_leases(conn)
        assert await reaper.reap() == 1
        pause = await conn.fetchval("select extract(epoch from run_at - now())::float8 from notification_jobs")
        assert 0.49e6 < pause < 1.51e6
        receiver.hold.set()


def test_only_the_delivery_worker_reaps() -> None:
    """A second caller could pass another back-off, and the result would depend on the order of calls."""
    rooms = Path(__file__).parents[2] / "services"
    callers = [file for file in rooms.rglob("*.py") if "delivery.reap" in file.read_text(encoding="utf-8")]
    assert [str(file.relative_to(rooms)) for file in callers] == ["delivery_worker/worker.py"]


async def test_leases_are_renewed_while_a_request_runs(conn: asyncpg.Connection, start: Start) -> None:
    """A slow database causes no second delivery. Losing the lease ends the request."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        await job(conn, await webhook(conn, receiver))
        worker = await start(delivery_lease_seconds=0.9, delivery_timeout_seconds=0.44)
        await worker.claim()
        before = await conn.fetchval("select lease_until from notification_jobs")
        await until(lambda: conn.fetchval("select 1 from notification_jobs where lease_until > $1", before))
        await until(lambda: settled(conn, "pending"))
    assert await outcomes(conn) == [("unknown", None, "no answer within 0.44 s")]


async def test_leases_are_renewed_until_outcomes_are_recorded(conn: asyncpg.Connection, start: Start) -> None:
    """Recording fails for longer than a lease: no other worker may send the notification again meanwhile."""
    async with Receiver() as receiver:
        await job(conn, await webhook(conn, receiver))
        worker = await start(delivery_lease_seconds=0.9, delivery_timeout_seconds=0.44)
        await conn.execute("alter function delivery.finish rename to not_to_be_called")
        await worker.claim()
        await until(lambda: worker.observed("finish"))
        before = await conn.fetchval("select lease_until from notification_jobs")
        await until(lambda: conn.fetchval("select 1 from notification_jobs where lease_until > $1", before))
        await conn.execute("alter function delivery.not_to_be_called rename to finish")
        await until(lambda: settled(conn, "delivered"))
        assert len(receiver.requests) == 1


async def test_an_internal_error_names_its_type_only(
    conn: asyncpg.Connection, start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of an exception may quote an address with its secret; the log adds the line that raised it."""

    async def broken(*_arguments: object, **_options: object) -> Outcome:
        raise RuntimeError("cannot post to https://ann:hunter2hunter@hooks.example")

    monkeypatch.setattr(channels, "send", broken)
    async with Receiver() as receiver:
        await job(conn, await webhook(conn, receiver))
        worker = await start()
        await worker.claim()
        await until(lambda: conn.fetchval("select count(*) from delivery_attempts"))
    assert await outcomes(conn) == [("retry", None, "internal error: RuntimeError")]
    (record,) = [record for record in caplog.records if record.message.startswith("send failed")]
    assert record.message.startswith(f"send failed: RuntimeError at {__file__}:")
    assert "hunter2" not in str([vars(each) for each in caplog.records])


async def test_a_request_whose_lease_another_has_is_cut_off(
    conn: asyncpg.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Its slot is free at once, and its end is not recorded."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        await job(conn, await webhook(conn, receiver))
        worker = await start(delivery_lease_seconds=6, delivery_timeout_seconds=2.9)
        await worker.claim()
        await until(lambda: len(receiver.requests) == 1)
        await conn.execute("update notification_jobs set lease_epoch = lease_epoch + 1")
        (record,) = await until(
            lambda: [r for r in caplog.records if r.message == "attempt ended after its lease was lost"]
        )
        assert vars(record)["error"] == "canceled during the request; whether it arrived is unknown"
    assert await outcomes(conn) == []


async def test_a_stop_lets_requests_end_and_releases_the_rest(conn: asyncpg.Connection, start: Start) -> None:
    """An answered request is recorded. An aborted one has outcome unknown and is retried by another worker."""
    async with Receiver() as hanging, Receiver() as answering:
        hanging.hold.clear()
        answering.hold.clear()
        cut = await job(conn, await webhook(conn, hanging, "hanging"))
        done = await job(conn, await webhook(conn, answering, "answering"))
        worker = await start(delivery_stop_seconds=0.3)
        assert await worker.claim() == 2
        await until(lambda: hanging.requests and answering.requests)
        stopping = asyncio.ensure_future(worker.stop())
        answering.hold.set()
        await asyncio.wait_for(stopping, 5)
        assert await states(conn) == {cut: "pending", done: "delivered"}
    assert sorted(outcome for outcome, _status, _error in await outcomes(conn)) == ["delivered", "unknown"]


async def test_outcomes_outlive_a_lost_connection(conn: asyncpg.Connection, start: Start) -> None:
    """An answer received during an outage of the database is recorded later, and nothing is sent twice."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        channel = await webhook(conn, receiver)
        for _ in range(3):
            await job(conn, channel)
        worker = await start()
        assert await worker.claim() == 3
        await until(lambda: len(receiver.requests) == 3)
        await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pulse_app'"
            " and datname = current_database()"
        )
        receiver.hold.set()
        await until(lambda: settled(conn, "delivered"))
        assert len(receiver.requests) == 3


async def test_one_outcome_that_cannot_be_stored_costs_no_other(
    conn: asyncpg.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch is split until only the outcome that the database refuses is left."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        channel = await webhook(conn, receiver)
        numbers = [await job(conn, channel) for _ in range(3)]
        await conn.execute(
            f"alter table delivery_attempts add constraint refuse_one check (job_id <> {numbers[1]}) not valid"
        )
        worker = await start()
        assert await worker.claim() == 3
        await until(lambda: len(receiver.requests) == 3)
        receiver.hold.set()
        await until(lambda: [r for r in caplog.records if r.message == "outcome cannot be recorded"])
        await until(lambda: conn.fetchval("select count(*) = 2 from delivery_attempts"))
    assert list((await states(conn)).values()) == ["delivered", "leased", "delivered"]


async def test_only_the_receiver_gets_secrets(
    conn: asyncpg.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """No table and no log line contains a secret, even if the receiver echoes the request."""
    caplog.set_level(logging.DEBUG)
    routing_key = "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY32"
    path = "/in/hush-hush-hush?token=quiet-quiet"
    async with Receiver() as receiver, Receiver() as pager, Receiver() as chat:
        receiver.default = (400, {}, f"{receiver.url}{path} {SECRET}".encode())
        pager.default = (400, {}, f"{pager.url}{path} {routing_key}".encode())
        chat.default = (400, {}, f"{chat.url}{path}".encode())
        for name, config in {
            "repeats": {"url": receiver.url + path},
            "away": {"url": "http://127.0.0.1:1" + path},
            "odd": {"secret": "hush-hush-hush"},
        }.items():
            await job(conn, await webhook(conn, receiver, name, **config))
        for kind, config in {
            "pagerduty": {"url": pager.url + path, "routing_key": routing_key},
            "slack": {"url": chat.url + path},
            "teams": {"url": chat.url + path},
        }.items():
            channel = await seed.channel(conn, kind, kind=kind, config=orjson.dumps(config).decode())
            await job(conn, channel)
        worker = await start()
        assert await worker.claim() == 6
        await until(lambda: settled(conn, "dead", "pending"))
    stored = ""
    # The address of a webhook is shown where it was set, up to its query.
    for table in ("notification_jobs", "delivery_attempts", "audit_log where category <> 'config'", "suppressions"):
        stored += "".join(row["t"] for row in await conn.fetch(f"select t::text from (select * from {table}) t"))
    logged = "".join(str(vars(record)) for record in caplog.records if record.name.startswith("services."))
    assert "HTTP 400" in stored
    for secret in ("hush-hush-hush", "quiet-quiet", SECRET, routing_key):
        assert secret not in stored
        assert secret not in logged


async def test_idle_passes_say_so(start: Start) -> None:
    """The loop waits after a pass that returns 0."""
    worker = await start()
    assert (await worker.claim(), await worker.reap()) == (0, 0)


def test_a_request_must_end_well_before_its_lease() -> None:
    """Otherwise a worker that is merely slow would lose its job while it still sends."""
    with pytest.raises(ValidationError, match="less than half of PULSE_DELIVERY_LEASE_SECONDS"):
        DeliverySettings(database_url=URL, delivery_lease_seconds=20)
    with pytest.raises(ValidationError, match="less than half"):
        DeliverySettings(database_url=URL, delivery_timeout_seconds=15)
    assert DeliverySettings(database_url=URL, delivery_lease_seconds=21).delivery_timeout_seconds == 10
