"""The parts of every worker: loops over steps that are woken by notifications, measured, and ended by SIGTERM."""

from services.shared.worker.listener import describe, find_suspects
from services.shared.worker.loop import Loop
from services.shared.worker.process import connect, run_worker

__all__ = ["Loop", "connect", "describe", "find_suspects", "run_worker"]
