"""Three readers of the same views: a plain loop, the exporter, and Debian's postgres_exporter."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import asyncpg

from benchmarks._bench import ROOT, free_port
from exporter.shape import Kind, ViewShape

FOREIGN = "prometheus-postgres-exporter"
PATIENCE_SECONDS = 60.0


class Side(Protocol):
    """A reader of all views."""

    pid: int

    async def scrape(self) -> int:
        """Scrape once and return the rows or lines."""


class ByHand:
    """The queries in sequence over one connection, prepared once, with their rows discarded."""

    def __init__(self, connection: asyncpg.Connection, shapes: Sequence[ViewShape]) -> None:
        self.pid = os.getpid()
        self._connection = connection
        self._queries = [shape.query for shape in shapes]

    async def scrape(self) -> int:
        """Run all queries."""
        return sum([len(await self._connection.fetch(query)) for query in self._queries])


@dataclass
class OverHttp:
    """A process that serves /metrics over one kept connection, like Prometheus."""

    pid: int
    port: int

    def __post_init__(self) -> None:
        self._client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)

    async def scrape(self) -> int:
        """Send one request and block until its answer."""
        return self.get("/metrics").count(b"\n")

    def connect(self) -> None:
        """Open the connection again, because the server closes a long idle one."""
        self._client.close()
        self._client.connect()

    def get(self, path: str) -> bytes:
        """Return the body of a 200 answer."""
        self.ask(path)
        return self.answer(path)

    def ask(self, path: str) -> None:
        """Send a request."""
        self._client.request("GET", path)

    def answer(self, path: str) -> bytes:
        """Return the body of the 200 answer to the request that was sent."""
        answer = self._client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {body[:200]!r}")
        return body


@contextmanager
def pulse_exporter(url: str) -> Iterator[OverHttp]:
    """`python -m exporter` on a free port."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
    environment |= {"PULSE_EXPORTER_DATABASE_URL": url, "PULSE_PORT": str(port), "PULSE_LOG_LEVEL": "WARNING"}
    environment |= {"PULSE_EXPORTER_VIEW_TIMEOUT_SECONDS": "10"}
    with _process([sys.executable, "-m", "exporter"], environment) as pid:
        yield _when_ready(OverHttp(pid, port))


@contextmanager
def postgres_exporter(url: str, shapes: Sequence[ViewShape]) -> Iterator[OverHttp | None]:
    """Yield Debian's postgres_exporter with the same views as custom queries, or None if it is not installed."""
    program = shutil.which(FOREIGN)
    if program is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pulse-bench-") as place:
        queries = Path(place, "queries.yaml")
        # JSON is YAML.
        queries.write_text(json.dumps({shape.name: _custom_query(shape) for shape in shapes}))
        arguments = [f"--web.listen-address=127.0.0.1:{port}", f"--extend.query-path={queries}", "--log.level=error"]
        arguments += ["--disable-default-metrics", "--disable-settings-metrics"]
        arguments += ["--no-collector.database", "--no-collector.bgwriter"]
        environment = {"DATA_SOURCE_NAME": _data_source(url), "PATH": os.environ["PATH"]}
        with _process([program, *arguments], environment) as pid:
            yield _when_ready(OverHttp(pid, port))


def resident_megabytes(pid: int) -> float:
    """Return the memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) / 1024


def _custom_query(shape: ViewShape) -> dict[str, object]:
    special = ["le"] if shape.kind is Kind.HISTOGRAM else []
    special += ["sum"] if shape.has_sum else []
    usage = {**dict.fromkeys([*shape.labels, *special[:1]], "LABEL"), **dict.fromkeys([*special[1:], "value"], "GAUGE")}
    metrics = [{name: {"usage": kind, "description": shape.help or name}} for name, kind in usage.items()]
    return {"query": f"select * from ({shape.query}) v ({', '.join(usage)})", "metrics": metrics}


def _data_source(url: str) -> str:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    given = {
        "host": query.get("host") or parts.hostname,
        "port": query.get("port") or parts.port,
        "user": parts.username,
        "password": parts.password,
        "dbname": parts.path.strip("/"),
        "sslmode": query.get("sslmode", "disable"),
    }
    return " ".join(f"{name}='{value}'" for name, value in given.items() if value)


@contextmanager
def _process(arguments: Sequence[str], environment: dict[str, str]) -> Iterator[int]:
    # Its log about each scrape is irrelevant.
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(15)


def _when_ready(side: OverHttp) -> OverHttp:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            side.connect()
            side.get("/metrics")
            return side
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {side.pid} does not serve /metrics")
        time.sleep(0.05)


def scrape_at_once(side: OverHttp, scrapes: int) -> None:
    """Run so many scrapers at once, each with a separate connection."""
    sides = [OverHttp(side.pid, side.port) for _ in range(scrapes)]
    for one in sides:
        one.connect()
    for one in sides:
        one.ask("/metrics")
    for one in sides:
        one.answer("/metrics")
