"""A real OpenID Connect provider, npm's oidc-provider, as a process on loopback, installed outside the checkout."""

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from jose import jwk

from tests.support.api_client import SigningKey

VERSION = "9.13.3"
OLDEST_NODE = 20
RESOURCE = "https://pulse.example/api"
SECRET = "s e:cret%"
SCRIPT = Path(__file__).parent / "oidc_provider.mjs"


def install(require: Callable[[str], str]) -> Path:
    """Install the module if missing and return its directory. Skip the test, or fail in CI, if that is impossible."""
    node, npm = require("node"), require("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node {version.strip()} is older than {OLDEST_NODE}: a real OpenID provider is NOT tested")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pulse-tests"
    place = cache / f"oidc-provider-{VERSION}"
    if not (place / "node_modules" / "oidc-provider").exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Moved into place when complete, because another process may install at the same time.
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            command = [npm, "install", "--prefix", scratch, "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            done = subprocess.run([*command, f"oidc-provider@{VERSION}"], capture_output=True, text=True, check=False)
            if done.returncode:
                message = f"npm cannot install oidc-provider: {done.stderr[-300:]}"
                if os.environ.get("PULSE_TEST_REQUIRE") == "all":
                    pytest.fail(message)
                pytest.skip(f"{message}: a real OpenID provider is NOT tested")
            if not place.exists():
                (made := Path(scratch) / "made").mkdir()
                (Path(scratch) / "node_modules").rename(made / "node_modules")
                made.rename(place)
    return place


@dataclass(frozen=True, slots=True)
class RealProvider:
    """The running provider and its one client."""

    url: str
    process: asyncio.subprocess.Process

    async def stop(self) -> None:
        """Stop the provider."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def grant(self, grant_type: str, **form: str) -> dict[str, Any]:
        """Return the token endpoint's answer to the client."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(
                f"{self.url}/token",
                data={"grant_type": grant_type, **form},
                auth=(quote_plus("pulse"), quote_plus(SECRET)),
            )
        assert answer.status_code == 200, answer.text
        granted: dict[str, Any] = answer.json()
        return granted


@asynccontextmanager
async def real_provider(modules: Path, port: int, key: SigningKey) -> AsyncIterator[RealProvider]:
    """Run the provider with one signing key while the block lasts."""
    private = {**jwk.construct(key.pem, "RS256").to_dict(), "kid": key.kid, "use": "sig"}
    private.pop("alg")
    options = {
        "modules": str(modules),
        "issuer": f"http://127.0.0.1:{port}",
        "port": port,
        "keys": [private],
        "secret": SECRET,
        "resource": RESOURCE,
        "alg": key.algorithm,
        "auth": "client_secret_basic",
    }
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), json.dumps(options), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    provider = RealProvider(str(options["issuer"]), process)
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"ready"
        yield provider
    finally:
        await provider.stop()
