"""Pulse with a real OpenID Connect provider: its tokens, its sessions, its restart."""

from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest

from tests.support import seed
from tests.support.api_client import ps256_key
from tests.support.processes import free_port, ready_service
from tests.support.real_provider import RESOURCE, SECRET, install, real_provider
from tests.support.wait import until

PATH = "/api/v1/devices"


@pytest.mark.slow
async def test_tokens_sessions_and_a_restart_with_the_same_key_id(
    app_url: str, conn: asyncpg.Connection, require: Callable[[str], str]
) -> None:
    await seed.tenant(conn)
    modules, port = install(require), free_port()
    settings = {
        "oidc_issuer": f"http://127.0.0.1:{port}",
        # The client's own id is an audience, as with one registration for API and client.
        "oidc_audience": f"{RESOURCE},pulse",
        "oidc_client_ids": "pulse",
        "oidc_client_secret": SECRET,
        "oidc_tenant_claim": "https://pulse.example/tenant",
        "oidc_role_claim": "realm_access.roles",
        "oidc_role_map": '{"boss": "admin"}',
    }
    async with (
        real_provider(modules, port, ps256_key("k1")) as provider,
        ready_service("services.ui_iot", app_url, **settings) as running,
    ):

        async def status(text: str) -> int:
            return (await running.get(PATH, authorization=f"Bearer {text}")).status_code

        granted, service = await provider.grant("password"), await provider.grant("client_credentials")
        assert [await status(each["access_token"]) for each in (granted, service)] == [200, 200]
        refused = await running.get(PATH, authorization=f"Bearer {granted['id_token']}")
        assert (refused.status_code, refused.json()["reason"]) == (401, "invalid_claims")
        assert "access token" in refused.json()["detail"]

        async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
            body = {"refresh_token": granted["refresh_token"]}
            refreshed = await client.post("/auth/refresh", json=body)
            assert refreshed.status_code == 200, refreshed.text
            assert await status(refreshed.json()["access_token"]) == 200
            # The provider has rotated it.
            again = await client.post("/auth/refresh", json=body)
            assert (again.status_code, again.json()["reason"]) == (401, "invalid_token")

        await provider.stop()
        async with real_provider(modules, port, ps256_key("k1")) as restarted:
            renewed = (await restarted.grant("password"))["access_token"]
            # At the latest after the pause between two fetches of keys.
            await until(lambda: succeeds(status, renewed), seconds=30)
            assert await status(granted["access_token"]) == 401


async def succeeds(status: Callable[[str], Awaitable[int]], text: str) -> bool:
    """Return whether the token is accepted."""
    return await status(text) == 200
