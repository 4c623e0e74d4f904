"""The end of a pool of connections."""

import asyncio

import pytest

from services.shared import db
from services.shared.settings import UiSettings


async def test_a_connection_that_is_never_given_back_does_not_hold_up_the_end(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes a canceled task, as after Ctrl-C."""
    monkeypatch.setattr(db, "CLOSE_SECONDS", 0.1)
    pool = await db.open_pool(UiSettings(database_url=app_url, pool_max_size=2))
    await pool.acquire()
    entered = asyncio.Event()

    async def work() -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        finally:
            await db.close_pool(pool)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=30)
    assert done == {task}
    assert task.cancelled()
    assert pool.is_closing()
