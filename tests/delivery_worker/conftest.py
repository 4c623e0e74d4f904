"""Fixtures of the delivery worker's tests."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.delivery_worker.worker import build
from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import DeliverySettings
from services.shared.worker.metrics import WorkerMetrics
from tests.support.delivery_process import Start, Worker


@pytest.fixture
async def start(app_pool: Pool) -> AsyncIterator[Start]:
    """Starts workers that share a pool; each stops at the end of the test unless it was stopped before."""

    async def start_one(**settings: Any) -> Worker:
        defaults: dict[str, Any] = {"allow_private_destinations": True, "delivery_stop_seconds": 0.3}
        process = Process(
            DeliverySettings(database_url="postgresql://unused", **(defaults | settings)),
            ProcessMetrics("delivery_worker"),
            app_pool,
        )
        own = AsyncExitStack()
        claim, reap = await own.enter_async_context(build(process))
        metrics = WorkerMetrics(process.metrics, loops=[claim.operation, reap.operation])
        stack.push_async_callback(own.aclose)

        async def stop() -> None:
            process.stopping = True
            await own.aclose()

        return Worker(process, metrics, claim, reap, stop)

    async with AsyncExitStack() as stack:
        yield start_one
