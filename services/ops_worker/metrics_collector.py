"""History of the services' counters, kept even while no Prometheus scrapes them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from services.ops_worker.acting import act_as_system
from services.ops_worker.service_status import ask_all
from services.shared import tracing
from services.shared.db import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetricsCollector:
    """Samples all services in rounds. urls: address of /health by service. round_seconds: interval between rounds."""

    client: httpx.AsyncClient
    urls: Mapping[str, str]
    round_seconds: float
    concurrency: int

    async def collect(self, pool: Pool) -> int:
        """Sample all services that answer, in a new trace. Return 0, so that the next round waits for the interval."""
        with tracing.use_trace_id(None):
            answers = await ask_all(self.client, self.urls, concurrency=self.concurrency)
            samples = [(answer.service, name, value) for answer in answers for name, value in answer.counters.items()]
            async with act_as_system(pool) as connection:
                stored = await connection.fetchval(
                    "select ops.record_service_metrics($1, $2, $3, $4)",
                    [service for service, _, _ in samples],
                    [name for _, name, _ in samples],
                    [value for _, _, value in samples],
                    # Concurrent rounds of several copies store one series.
                    self.round_seconds / 2,
                )
            log.debug("service metrics stored", extra={"samples": stored})
        return 0
