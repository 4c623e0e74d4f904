"""What every worker is: loops over steps, woken by notifications, measured, ended by SIGTERM."""

from services.shared.worker.backoff import backoff_seconds
from services.shared.worker.loop import Loop
from services.shared.worker.process import connect, run_worker
from services.shared.worker.suspects import describe, find_suspects

__all__ = ["Loop", "backoff_seconds", "connect", "describe", "find_suspects", "run_worker"]
