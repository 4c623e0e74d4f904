"""Fixtures of the tests of cli."""

from pathlib import Path

import asyncpg
import pytest

from services.shared import db
from tests.support.sealed_log import SealedLog, make_sealer


@pytest.fixture
async def log(conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """An empty sealed log."""
    return SealedLog(conn, ops_pool, auditor_pool, tmp_path, make_sealer(tmp_path))
