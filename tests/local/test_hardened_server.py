"""Pulse on servers where PUBLIC has no rights and the login that migrates is no superuser."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from migrations.layer_catalog import SCHEMAS
from services.local.postgres.server import EmbeddedPostgres
from services.shared.audit_writer import journal
from services.shared.audit_writer.line import COLUMNS, SEPARATOR, Line
from tests.support.hardened_server import harden, migrate_as_deployer
from tests.support.migrator import Migrator
from tests.support.migrator_program import pulse_migrate
from tests.support.scrape import exporting
from tests.support.servers import DEBIAN_15, connect, make_login


@pytest.fixture(params=["embedded", DEBIAN_15])
def server(request: pytest.FixtureRequest, tmp_path: Path, require: Callable[[str], str]) -> Iterator[EmbeddedPostgres]:
    """A new server whose database `pulse` belongs to the login `deployer` and grants nothing to PUBLIC."""
    bin_dir = None if request.param == "embedded" else Path(require(request.param)).parent
    with EmbeddedPostgres(tmp_path / "server", durable=False, bin_dir=bin_dir) as started:
        make_login(started, "createrole")
        with connect(started.url()) as session:
            session.execute("alter database pulse owner to deployer")
            harden(session)
        yield started


@pytest.mark.slow
async def test_every_role_has_what_it_needs_where_public_has_nothing(server: EmbeddedPostgres) -> None:
    """The audit writer's COPY works, no metric is missing, and the readers find their tables and views."""
    refused = pulse_migrate(server.url("deployer")).stderr
    assert refused.startswith("pulse: migration failed: permission denied for function current_setting. Ask an ")
    with connect(server.url()) as administrator:
        migrate_as_deployer(Migrator(server.url("deployer")), administrator)
    assert "nothing to do" in Migrator(server.url("deployer")).upgrade()

    owner = await asyncpg.connect(server.url())
    public = await owner.fetch(
        "select n.nspname from pg_namespace n cross join aclexplode(n.nspacl) a"
        " where a.grantee = 0 and n.nspname = any ($1)",
        [*SCHEMAS, "public"],
    )
    assert public == []

    app = await asyncpg.connect(server.url("pulse_app"))
    columns = dict.fromkeys(COLUMNS)
    columns |= {"tenant_id": "system", "event_id": "01980000-0000-7000-8000-000000000001"}
    columns |= {"timestamp": datetime.now(UTC).isoformat(), "event_type": "system.started", "category": "system"}
    columns |= {"severity": "info", "action": "started", "message": "copied", "details": "{}"}
    columns |= {"source_service": "ui_iot", "actor_type": "service", "actor_id": "ui_iot"}
    await journal.copy(app, [Line(SEPARATOR.join(value or "" for value in columns.values()))])
    await app.close()

    views = {row[0] for row in await owner.fetch("select viewname from pg_views where schemaname = 'metrics'")}
    async with exporting(server.url("pulse_exporter")) as scraper:
        assert (await scraper.scrape()).views() == dict.fromkeys(views, True)

    for role in ("pulse_auditor", "pulse_operator"):
        reader = await asyncpg.connect(server.url(role))
        assert await reader.fetchval("select message from audit_log where source_service = 'ui_iot'") == "copied"
        assert await reader.fetchval("select count(*) from audit.recent") == 1
        assert "audit_log" in [
            row[0] for row in await reader.fetch("select relname from pg_class where pg_table_is_visible(oid)")
        ]
        await reader.close()
    await owner.close()


def test_a_missing_schema_public_is_made(server: EmbeddedPostgres) -> None:
    """Some administrators drop it."""
    with connect(server.url()) as administrator:
        administrator.execute("drop schema public")
        migrate_as_deployer(Migrator(server.url("deployer")), administrator)
        owner = administrator.execute("select nspowner::regrole::text from pg_namespace where nspname = 'public'")
        assert owner.fetchone() == ("pulse_owner",)
