"""`python -m exporter`: serve metrics until SIGTERM or SIGINT, with or without the database."""

import asyncio
import gc
import logging

from exporter.app import create_app
from exporter.collector import ViewCollector
from exporter.login import ExporterLoginSettings
from services.shared.metrics import ProcessMetrics
from services.shared.process import run_process, stop_on_signals
from services.shared.server import Process, serve_process
from services.shared.settings import ExporterSettings

log = logging.getLogger("exporter")


async def run(settings: ExporterSettings) -> None:
    """Serve until the stop signal."""
    stop = stop_on_signals()
    process = Process(settings=settings, metrics=ProcessMetrics(settings.service))
    process.metrics.processing("scrape")
    collector = ViewCollector(settings, process)
    process.probe = collector.fault
    process.ready = True
    # Imported objects stay forever, so the garbage collector need not examine them during a scrape.
    gc.freeze()
    log.info("started", extra={"port": settings.port})
    app = create_app(process, collector, longest_seconds=settings.exporter_deadline_seconds)
    server = asyncio.create_task(serve_process(process, app, stop=stop), name="http-server")
    server.add_done_callback(lambda _task: stop.set())
    try:
        await stop.wait()
        process.stopping = True
        # First, so that a running request does not wait for hanging views.
        await collector.close()
        await server
    finally:
        await collector.close()
        log.info("stopped")


if __name__ == "__main__":
    run_process(ExporterLoginSettings, run)
