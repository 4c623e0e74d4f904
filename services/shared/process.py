"""The life of a process: settings, logs, signals, and the record of its start and stop."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg

from services.shared import logging as json_logging
from services.shared import otlp
from services.shared.connecting.faults import UnsafeDatabase
from services.shared.connecting.fitness import SchemaMismatch
from services.shared.db import UNAVAILABLE
from services.shared.listening import CannotListen
from services.shared.server import PROBE_SECONDS, Process
from services.shared.settings import Settings
from services.shared.web import BadCertificate

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)


async def record_process(process: Process, event: str) -> None:
    """Record in the audit trail that this process started or stopped. Without the database, log a warning instead."""
    if process.pool is None:
        return
    instance = f"{socket.gethostname()}:{os.getpid()}"
    try:
        async with process.pool.acquire(timeout=PROBE_SECONDS) as connection:
            await connection.execute(
                "select audit.record_process($1, $2, $3)", process.service, instance, event, timeout=PROBE_SECONDS
            )
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        log.warning("%s is not in the audit trail: %s", event, type(error).__name__)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def run_process(settings_class: type[S], run: Callable[[S], Coroutine[Any, Any, None]]) -> None:
    """Read the settings, log as JSON and run. Exit 1 with one line when the process cannot start."""
    settings = settings_class.load()
    run_until_stopped(settings, run(settings))


def run_until_stopped(settings: Settings, work: Coroutine[Any, Any, None]) -> None:
    """Log as JSON and run. Exit 1 with one line when the process cannot start."""
    json_logging.configure(settings.service, settings.log_level)
    with reported_in_one_line(), otlp.exporting(settings.service, settings.egress):
        asyncio.run(work)


@contextmanager
def reported_in_one_line() -> Iterator[None]:
    """Exit 1 with one line when the process cannot start: a traceback would not help the operator."""
    try:
        yield
    except (SchemaMismatch, UnsafeDatabase, CannotListen, BadCertificate, asyncpg.PostgresError) as reason:
        log.error("cannot start: %s", reason)  # noqa: TRY400  # no traceback
        raise SystemExit(1) from None
