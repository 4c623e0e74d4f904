"""A listener detects that it gets no notifications, behind a network that drops packets and keeps connections open."""

import logging
from contextlib import AsyncExitStack

import asyncpg
import pytest

from services.shared.db import Pool
from services.shared.worker import listener
from services.shared.worker.listener import Timing
from services.shared.worker.loop import UNWOKEN_POLL_SECONDS
from tests.chaos.proxy import MessageProxy
from tests.support.evaluation import FAST, evaluating
from tests.support.wait import until


async def test_a_deaf_listener_polls_says_so_and_recovers(
    conn: asyncpg.Connection, app_url: str, app_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """During the outage, even at the start, polling finds work; afterwards a notification wakes the loop again."""
    caplog.set_level(logging.DEBUG, "services.shared.worker")

    def messages() -> list[str]:
        listener = [record for record in caplog.records if record.name.endswith("listener")]
        return [record.message.split(":")[0] for record in listener if record.levelno >= logging.INFO]

    async with MessageProxy(app_url, lambda _: "pass") as network:
        network.stall("client", "server")
        async with evaluating(conn, app_pool, network.url) as worker:
            assert worker.states() == {"connected": 0, "deaf": 1, "polling": 0}
            await worker.handles(1)
            await worker.becomes("deaf")
            await until(lambda: messages() == ["listener is deaf"])
            network.resume()
            await worker.becomes("connected")
            # With a poll interval of an hour, only notifications can find each reading.
            await worker.handles(3)

            network.stall("client", "server")
            await worker.becomes("deaf")
            await worker.handles(2)
            await worker.becomes("deaf")
            network.resume()
            await worker.becomes("connected")
            await worker.handles(3)
            assert (worker.sample("pulse_listener_restarts_total") or 0) >= 1
            assert messages() == ["listener is deaf", "listener is connected"] * 2

            # A ping that was not sent proves nothing: all connections of the pool are busy.
            caplog.clear()
            async with AsyncExitStack() as held:
                for _ in range(app_pool.get_max_size()):
                    await held.enter_async_context(app_pool.acquire())
                await until(lambda: sum("ping not sent" in record.message for record in caplog.records) >= 2)
                assert worker.states()["connected"] == 1
            assert messages() == []
            network.stall("client", "server")
    # The outage does not delay the stop: no task had to be canceled.
    assert [record.message for record in caplog.records if record.message == "pass canceled"] == []


async def test_a_connection_that_never_lasts_is_replaced_ever_more_slowly(
    conn: asyncpg.Connection, app_url: str, app_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each loss counts as another failure although a ping returned before it."""
    asked: list[int] = []
    killed: list[asyncpg.Record] = []

    def pause(failures: int) -> float:
        asked.append(failures)
        return 0.0

    monkeypatch.setattr(listener, "backoff_seconds", pause)
    async with evaluating(conn, app_pool, app_url, timing=Timing(ping_seconds=0.1, deaf_seconds=60.0)) as worker:
        while len(killed) < 3:
            await worker.becomes("connected")
            killed.extend(
                await conn.fetch(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'pulse-evaluator_iot-listen' and datname = current_database()"
                )
            )
            await until(lambda: len(asked) == len(killed))
    assert asked == [1, 2, 3]


async def test_only_the_ping_that_was_sent_last_proves_anything(
    conn: asyncpg.Connection,
    app_url: str,
    app_pool: Pool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An older one says that notifications came then; here it comes while no ping can be sent."""
    caplog.set_level(logging.DEBUG, "services.shared.worker")
    monkeypatch.setattr("services.shared.worker.listener.secrets.token_hex", lambda _bytes: "known")
    async with evaluating(conn, app_pool, app_url) as worker:
        await worker.becomes("connected")
        async with AsyncExitStack() as held:
            for _ in range(app_pool.get_max_size()):
                await held.enter_async_context(app_pool.acquire())
            await conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'pulse-evaluator_iot-listen' and datname = current_database()"
            )
            await worker.becomes("deaf")
            await until(lambda: worker.sample("pulse_listener_restarts_total"))
            for _ in range(3):
                caplog.clear()
                await conn.execute("select pg_notify('pulse_ping_known', '1')")
                await until(lambda: any("ping not sent" in record.message for record in caplog.records))
            assert worker.states()["deaf"] == 1
        await worker.becomes("connected")


def test_the_real_times_leave_a_margin() -> None:
    """Two pings fit into the 5 s, and a deaf worker polls each second."""
    timing = Timing()
    assert timing.deaf_seconds == 5.0
    assert 1.0 < timing.ping_seconds <= timing.deaf_seconds / 2
    assert FAST.ping_seconds <= FAST.deaf_seconds / 2
    assert UNWOKEN_POLL_SECONDS == 1.0
