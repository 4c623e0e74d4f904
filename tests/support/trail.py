"""An AuditLogger for tests, and queries for the rows that it stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry

from services.shared import db
from services.shared.audit import AuditEvent, AuditLogger
from services.shared.audit_writer.spool import Spool
from services.shared.settings import UiSettings


class Trail:
    """An AuditLogger with queries for its state."""

    def __init__(self, pool: db.Pool, *, spool: Spool | None = None, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        # Every refusal is its own row, and no event is spooled before the test has finished with the database.
        chosen = {
            "audit_flood_rows_per_window": 0,
            "audit_read_rows_per_window": 0,
            "audit_database_seconds": 30,
            **settings,
        }
        values = UiSettings(database_url="postgresql://", **chosen)
        spool = spool or Spool(values.audit_spool_dir, service="ui_iot", limit=values.audit_spool_bytes)
        self.logger = AuditLogger(pool, settings=values, registry=self.registry, spool=spool)
        self.sent = 0

    def metric(self, name: str, buffer: str = "events") -> float:
        """Return a sample of pulse_audit_<name>."""
        value = self.registry.get_sample_value(f"pulse_audit_{name}", {"buffer": buffer})
        assert value is not None
        return value

    def total(self, name: str) -> float:
        """Return the only sample of pulse_audit_<name>."""
        value = self.registry.get_sample_value(f"pulse_audit_{name}")
        assert value is not None
        return value

    def has_written(self, count: int) -> bool:
        """Return whether the given number of events is stored, by either way."""
        return self.metric("events_written_total") + self.metric("events_written_total", "auth_failures") == count

    def has_begun(self, count: int) -> bool:
        """Return whether some of the given number of events are stored, by either way."""
        return self.metric("buffer_events") + self.metric("buffer_events", "auth_failures") < count

    def has_failed_since(self, failures: float) -> bool:
        """Return whether writes have failed since the counter had this value."""
        return self.metric("write_failures_total") > failures

    def send(self, count: int) -> None:
        """Log the given number of numbered events; every third is a refused login."""
        for _ in range(count):
            actor = db.Actor("user", f"user-{self.sent}")
            if self.sent % 3:
                self.logger.log(self.logger.auth.success(tenant_id="acme", actor=actor, ip_address="10.1.2.3"))
            else:
                self.logger.log(
                    self.logger.auth.failure(reason="expired", tenant_id="acme", actor=actor, ip_address="10.1.2.3")
                )
            self.sent += 1

    async def record(self, count: int = 1) -> None:
        """Record the given number of numbered logins, one after the other."""
        for _ in range(count):
            await self.logger.record(self.login())

    def login(self) -> AuditEvent:
        """Return the next numbered login."""
        self.sent += 1
        return self.logger.auth.success(tenant_id="acme", actor=db.Actor("user", f"user-{self.sent - 1}"))


@asynccontextmanager
async def open_trail(url: str, **settings: Any) -> AsyncIterator[Trail]:
    """Yield a running trail with its own pool, as open_audit_logger makes it."""
    pool = await db.open_pool(UiSettings(database_url=url, pool_min_size=0, pool_max_size=4))
    trail = Trail(pool, **settings)
    await trail.logger.start()
    try:
        yield trail
    finally:
        await trail.logger.stop()
        pool.terminate()


async def stored(conn: asyncpg.Connection) -> list[str]:
    """Return the actors of all stored auth events, sorted by number; a duplicate occurs twice."""
    rows = await conn.fetch("select actor_id from audit_log where category = 'auth'")
    return sorted((row[0] for row in rows), key=lambda name: int(name.removeprefix("user-")))


def expected(count: int) -> list[str]:
    """Return the actors of the given number of events, once each."""
    return [f"user-{number}" for number in range(count)]


def trace_id_of(time: datetime, number: int = 0) -> str:
    """Return one of Pulse's own trace ids, made at that time."""
    return f"{int(time.timestamp() * 1000):012x}7bea8{number:03x}{'a' * 12}"
