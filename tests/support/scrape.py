"""The exporter as a scraper sees it, over its ASGI application and a real database."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.app import create_app
from exporter.collector import ViewCollector
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import ExporterSettings

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Scrape:
    """One answer, parsed by the reference parser of its format."""

    families: Mapping[str, Metric]
    samples: Mapping[tuple[str, Labels], float]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sample of a name and exactly these labels, None when there is none."""
        return self.samples.get((name, frozenset(labels.items())))

    def series(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of a name by the values of these labels."""
        return {
            tuple(dict(found)[label] for label in labels): value
            for (sample, found), value in self.samples.items()
            if sample == name
        }

    def views(self) -> dict[str, bool]:
        """Return every view in the scrape with its state: served or left out."""
        return {view: bool(value) for (view,), value in self.series("pulse_exporter_view_success", "view").items()}

    def names(self) -> set[str]:
        """Names of all families."""
        return set(self.families)


@dataclass(frozen=True)
class Scraper:
    """Scrapes one exporter."""

    collector: ViewCollector
    process: Process
    client: httpx.AsyncClient

    async def scrape(self, **headers: str) -> Scrape:
        """Return one scrape in OpenMetrics."""
        answer = await self.client.get("/metrics", headers={"accept": OPENMETRICS, **headers})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        return _parsed(list(parse_openmetrics(answer.text)))  # type: ignore[no-untyped-call]

    async def scrape_text(self) -> Scrape:
        """Return one scrape in the text format."""
        answer = await self.client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return _parsed(list(parse_text(answer.text)))


def _parsed(families: list[Metric]) -> Scrape:
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    # The reference parsers accept repeated series and families; Prometheus does not.
    assert len(found) == len(samples)
    assert len({family.name for family in families}) == len(families)
    return Scrape({family.name: family for family in families}, found)


@asynccontextmanager
async def exporting(url: str, **settings: Any) -> AsyncIterator[Scraper]:
    """Yield an exporter of the database at url."""
    options = ExporterSettings(database_url=url, **settings)
    process = Process(settings=options, metrics=ProcessMetrics("exporter"))
    collector = ViewCollector(options, process)
    process.probe = collector.fault
    process.ready = True
    app = create_app(process, collector, longest_seconds=options.exporter_deadline_seconds)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        try:
            yield Scraper(collector, process, client)
        finally:
            await collector.close()


async def as_owner(conn: asyncpg.Connection, *statements: str) -> None:
    """Run statements as the owner of schema metrics, like sql/."""
    await conn.execute("set role pulse_owner; " + "; ".join(statements) + "; reset role")
