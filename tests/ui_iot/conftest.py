"""Fixtures of the tests of ui_iot."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.support import seed
from tests.support.api_client import EC, ISSUER, RSA, Api, open_api


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.tenant(conn)
    async with open_api(app_url) as opened:
        yield opened


@pytest.fixture
def issuer(tmp_path: Path) -> dict[str, str]:
    """Settings that name the tests' keys as the issuer's."""
    path = tmp_path / "jwks.json"
    path.write_bytes(orjson.dumps({"keys": [EC.public(), RSA.public()]}))
    return {"jwks_file": str(path), "jwt_issuer": ISSUER}
