"""`python -m exporter`: serves until SIGTERM or SIGINT, whether or not the database is there."""

import asyncio
import logging
import signal

from exporter.app import create_app
from exporter.collector import ViewCollector
from services.shared import logging as json_logging
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, serve
from services.shared.settings import Exporter

log = logging.getLogger("exporter")


async def run(settings: Exporter) -> None:
    """Serve until the process is told to stop, then let requests end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    process = Process(settings=settings, metrics=ProcessMetrics(settings.service))
    process.metrics.processing("scrape")
    collector = ViewCollector(settings, process)
    process.probe = collector.fault
    process.ready = True
    log.info("started", extra={"port": settings.port})
    try:
        app = create_app(process, collector, longest_seconds=settings.exporter_deadline_seconds)
        await serve(app, host=settings.host, port=settings.port, stop=stop)
    finally:
        process.stopping = True
        await collector.close()
        log.info("stopped")


def main() -> None:
    """Read the settings and run."""
    settings = Exporter.load()
    json_logging.configure(settings.service, settings.log_level)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
