"""A delivery worker in the test process, with its loops and metrics."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from services.shared.server import Process
from services.shared.worker import Loop
from services.shared.worker.listener import Listener
from services.shared.worker.loop import run_loop
from services.shared.worker.metrics import WorkerMetrics

KEY = b"0123456789abcdefghijklmn"


SECRET = "whsec_" + base64.b64encode(KEY).decode()


Start = Callable[..., Awaitable["Worker"]]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker and its two loops' passes."""

    process: Process
    metrics: WorkerMetrics
    claim_loop: Loop
    reap_loop: Loop
    stop: Callable[[], Awaitable[None]]

    async def claim(self) -> int:
        """Run one pass of the claim loop and return its result."""
        assert self.process.pool is not None
        return await self.claim_loop.step(self.process.pool)

    async def reap(self) -> int:
        """Run one pass of the reap loop and return its result."""
        assert self.process.pool is not None
        return await self.reap_loop.step(self.process.pool)

    def observed(self, operation: str) -> float:
        """Return the observations of an operation's duration."""
        labels = {"service": "delivery_worker", "operation": operation}
        return self.process.metrics.registry.get_sample_value("pulse_processing_duration_seconds_count", labels) or 0


@asynccontextmanager
async def claiming(*workers: Worker) -> AsyncIterator[None]:
    """Run the claim loops of workers with a short poll interval."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            loop = replace(worker.claim_loop, poll_seconds=0.01)
            tasks.create_task(
                run_loop(
                    loop,
                    worker.process,
                    metrics=worker.metrics,
                    listener=Listener(worker.process, worker.metrics),
                    stop=stop,
                )
            )
        try:
            yield
        finally:
            stop.set()
