"""Requests without a valid token cannot make /metrics large: labels come from the routes, not from clients."""

import asyncio
import random
from typing import Any

import asyncpg
import pytest

from tests.support import seed
from tests.support.api_client import Api, open_api, token

REQUESTS = 10_000
AT_ONCE = 100
MOST_BYTES = 500_000
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", "BREW", "G\u0000T")
TOKENS = ("", "Bearer", "Bearer x", "Basic x", *(f"Bearer {token(exp=second)}" for second in range(1, 20)))


async def attack(api: Api, number: int, chance: random.Random, paths: list[str]) -> int:
    """Send a request as an attacker might and return its status."""
    path = chance.choice(paths)
    if chance.random() < 0.3:
        path = chance.choice((f"/{number}", path + "/", path + f"/{number}", path.upper(), f"/%2e%2e{path}"))
    headers = {
        "Authorization": chance.choice((*TOKENS, f"Bearer pdt_t{number}_x")),
        "Origin": f"https://{number}.example",
        "User-Agent": f"agent {number}",
        "X-Trace-ID": f"{number:032x}",
        "Host": f"{number}.localhost",
    }
    if chance.random() < 0.1:
        headers["Content-Encoding"] = f"x-{number}"
    query = "?q=" + "x" * chance.choice((0, 10, 9000)) if chance.random() < 0.1 else f"?n={number}"
    answer = await api.client.request(chance.choice(METHODS), path + query, headers=headers, content=b"{}")
    return int(answer.status_code)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_ten_thousand_hostile_requests_keep_the_metrics_small(app_url: str, conn: asyncpg.Connection) -> None:
    await seed.device(conn)
    chance = random.Random(7)
    async with open_api(app_url, auth_rate_limit_per_minute=2000) as api:
        document: dict[str, Any] = (await api.client.get("/openapi.json")).json()
        paths = [path.replace("{", "").replace("}", "") for path in document["paths"]]
        paths += ["/", "/docs", "/openapi.json", "/livez", "/metrics", "/health", "/auth/refresh"]
        statuses: set[int] = set()
        for start in range(0, REQUESTS, AT_ONCE):
            attacks = (attack(api, number, chance, paths) for number in range(start, start + AT_ONCE))
            statuses.update(await asyncio.gather(*attacks))
        text = (await api.client.get("/metrics")).text
    assert {401, 429} <= statuses
    assert not {status for status in statuses if status >= 500}
    assert "example" not in text
    assert len(text) < MOST_BYTES, (len(text), statuses)
