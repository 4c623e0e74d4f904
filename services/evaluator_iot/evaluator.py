"""Readings to alerts: each pass is one call; the decisions are made and stored in the database."""

import logging

from services.shared import tracing
from services.shared.db import Pool
from services.shared.logging import tell
from services.shared.server import Process
from services.shared.settings import EvaluatorIot
from services.shared.worker import Loop

log = logging.getLogger(__name__)

_MESSAGES = {"open": "alert opens", "close": "alert closes", "late": "late breach becomes a closed alert"}


class Evaluator:
    """Evaluates new readings against the rules of their tenants."""

    def __init__(self, *, batch_readings: int) -> None:
        self._batch_readings = batch_readings

    async def step(self, pool: Pool) -> int:
        """One pass; returns the readings evaluated and the alerts that timers opened, 0 when idle."""
        row = await pool.fetchrow("select * from evaluator.evaluate($1)", self._batch_readings)
        for transition in row["transitions"]:
            with tracing.use_trace_id(transition["trace_id"]):
                tell(
                    log,
                    logging.INFO,
                    _MESSAGES[transition["kind"]],
                    {name: transition[name] for name in ("tenant_id", "rule_id", "device_id", "value", "at")},
                )
        return int(row["readings"]) + len(row["transitions"])


def build(process: Process) -> list[Loop]:
    """The loops of the process."""
    settings = process.settings
    assert isinstance(settings, EvaluatorIot)
    evaluator = Evaluator(batch_readings=settings.evaluator_batch_readings)
    return [
        Loop(
            "evaluate",
            evaluator.step,
            wake_on="pulse_evaluator",
            poll_seconds=settings.poll_seconds,
        )
    ]
