"""Fixtures of the tests of ops_worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from services.shared import db
from services.shared.http_client import traced_client
from tests.support.connections import Connect, connections
from tests.support.sealed_log import SealedLog, make_sealer


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The client of ops_worker, with a shorter timeout."""
    async with traced_client(allow_private=True, timeout_seconds=1.0) as traced:
        yield traced


@pytest.fixture
async def connect(database_url: str) -> AsyncIterator[Connect]:
    """A function that opens further connections to the clone."""
    async with connections(database_url) as open_one:
        yield open_one


@pytest.fixture
async def log(conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """A sealed log of ten blocks."""
    made = SealedLog(conn, ops_pool, auditor_pool, tmp_path / "audit", make_sealer(tmp_path / "audit"))
    await made.fill()
    return made
