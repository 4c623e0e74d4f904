"""Every bucket's exemplar names a trace that can be looked up."""

import json
from typing import Any

import asyncpg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from services.shared import tracing
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.scrape import OPENMETRICS
from tests.support.table_lock import NOWHERE, TableLock

DEVICES = "/api/v1/devices"


async def scrape_exemplars(api: Api) -> dict[tuple[str, str], set[str]]:
    """Return trace ids by template and status from OpenMetrics. The older format shows none."""
    plain = (await api.client.get("/metrics")).text
    assert "# {" not in plain
    assert "pulse_http_request_duration_seconds_bucket" in plain
    text = (await api.client.get("/metrics", headers={"Accept": OPENMETRICS})).text
    found: dict[tuple[str, str], set[str]] = {}
    for family in parse_openmetrics(text):  # type: ignore[no-untyped-call]  # the library's gap
        for sample in family.samples:
            if sample.exemplar is None:
                continue
            assert sample.name == "pulse_http_request_duration_seconds_bucket"
            assert set(sample.exemplar.labels) == {"trace_id"}
            key = (sample.labels["path_template"], sample.labels["status_code"])
            found.setdefault(key, set()).add(sample.exemplar.labels["trace_id"])
    return found


async def test_every_exemplar_is_on_record(app_url: str, conn: asyncpg.Connection) -> None:
    """Probes, open paths, aggregated requests and unstored events have no exemplar."""
    table_lock = TableLock(conn)
    await seed.tenant(conn)
    settings: dict[str, Any] = {"audit_database_seconds": 3, "audit_spool_dir": NOWHERE}
    async with open_api(app_url, audit_read_rows_per_window=0, audit_flood_rows_per_window=2, **settings) as api:
        for method, path, role, status in (
            ("GET", DEVICES, "viewer", 200),
            ("PUT", DEVICES, "viewer", 405),
            ("GET", f"{DEVICES}?limit=0", "viewer", 422),
            ("POST", DEVICES, "viewer", 403),
            ("GET", "/api/v1/nowhere", "viewer", 404),
        ):
            assert (await api.call(method, path, role=role)).status_code == status, path
        # The third equal request is aggregated and has no separate row.
        for path in ("/api/v1/alerts", "/api/v1/rules", "/api/v1/channels"):
            assert (await api.client.get(path)).status_code == 401
        for path in ("/docs", "/openapi.json", "/livez", "/readyz", "/health"):
            assert (await api.client.get(path)).status_code == 200
        await table_lock.hold()
        assert (await api.call("GET", "/api/v1/routes")).status_code == 503
        turned_away = await api.client.get("/api/v1/deliveries", headers={"Authorization": "Bearer rubbish"})
        assert turned_away.status_code == 401
        await table_lock.release()
        found = await scrape_exemplars(api)
        assert set(found) == {
            *((DEVICES, status) for status in ("200", "405", "422", "403")),
            ("__unmatched__", "404"),
            ("/api/v1/alerts", "401"),
            ("/api/v1/rules", "401"),
        }
        for key, trace_ids in found.items():
            for trace_id in trace_ids:
                [row] = await conn.fetch("select details::text as details from audit_log where trace_id = $1", trace_id)
                assert len(json.loads(row["details"])["span_id"]) == 16, key
        [trace_id] = found[DEVICES, "200"]
        story = await api.call("GET", f"/api/v1/traces/{trace_id}")
        assert story.status_code == 200
        assert trace_id in story.text


async def test_what_is_let_in_off_the_record_is_no_exemplar(app_url: str, conn: asyncpg.Connection) -> None:
    """With `allow`, an event that was not stored is no exemplar."""
    table_lock = TableLock(conn)
    await seed.tenant(conn)
    settings: dict[str, Any] = {"audit_database_seconds": 0.2, "audit_spool_dir": NOWHERE}
    async with open_api(app_url, audit_when_blocked="allow", **settings) as api:
        await table_lock.hold()
        assert (await api.call("GET", DEVICES)).status_code == 200
        await table_lock.release()
        assert await scrape_exemplars(api) == {}


async def test_the_event_of_a_request_records_its_place_in_the_trace(
    app_url: str, conn: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event has its span, the caller's span, and the caller's trace if that is not continued."""
    await seed.tenant(conn)
    context = tracing.TraceContext("ab" * 16, "01" * 8, parent_span_id="02" * 8, foreign_trace_id="cd" * 16)
    monkeypatch.setattr(tracing, "from_headers", lambda *_args, **_options: context)
    async with open_api(app_url) as api:
        await api.call("GET", DEVICES)
    [row] = await conn.fetch("select details::text as details from audit_log where trace_id = $1", context.trace_id)
    details = json.loads(row["details"])
    assert (details["span_id"], details["parent_span_id"]) == ("01" * 8, "02" * 8)
    assert details["parent_trace_id"] == "cd" * 16
