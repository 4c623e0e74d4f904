"""Health checks of all services, whose results open and close system alerts in the database."""

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
class HealthMonitor:
    """Checks all services in rounds. urls: address of /health by service. round_seconds: interval between rounds."""

    client: httpx.AsyncClient
    urls: Mapping[str, str]
    failures_to_alert: int
    round_seconds: float
    concurrency: int

    async def check(self, pool: Pool) -> int:
        """Run one round in a new trace. Return 0, so that the next round waits for the interval."""
        with tracing.use_trace_id(None):
            answers = await ask_all(self.client, self.urls, concurrency=self.concurrency)
            async with act_as_system(pool) as connection:
                stored = await connection.fetch(
                    "select service, error, failures, opened_alert_id, closed_alerts"
                    " from ops.record_health($1, $2, $3, $4, $5, $6)",
                    [answer.service for answer in answers],
                    [answer.url for answer in answers],
                    [answer.latency_ms for answer in answers],
                    [answer.error for answer in answers],
                    self.failures_to_alert,
                    # Concurrent rounds of several copies count as one. Half an interval allows for slow answers.
                    self.round_seconds / 2,
                )
            for row in stored:
                extra = {"target": row["service"], "failures": row["failures"], "error": row["error"]}
                if row["opened_alert_id"] is not None:
                    log.error("service is down", extra={**extra, "alert_id": row["opened_alert_id"]})
                elif row["closed_alerts"]:
                    log.info("service is up again", extra=extra)
                elif row["failures"]:
                    log.warning("health check failed", extra=extra)
        return 0
