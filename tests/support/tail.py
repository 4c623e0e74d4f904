"""A client of server-sent events, and the application on its own socket, because a tail needs a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from services.shared.server import serve
from tests.support.api_client import Api, token
from tests.support.processes import free_port
from tests.support.wait import until


@dataclass
class Stream:
    """Everything that one tail has sent so far."""

    response: httpx.Response
    events: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    ended: bool = False

    async def read(self) -> None:
        """Read until the stream ends."""
        async for line in self.response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                self.ids.append(value)
            elif name == "data":
                self.events.append(orjson.loads(value))
            elif not name and value:
                self.comments.append(value)
        self.ended = True

    @property
    def event_ids(self) -> list[str]:
        """The ids of the received events."""
        return [event["event_id"] for event in self.events]

    async def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Return the events as soon as the given number has arrived."""
        assert self.response.status_code == 200, self.response.text
        await until(lambda: len(self.events) >= count)
        return self.events


@asynccontextmanager
async def tail(url: str, query: str = "", *, bearer: str | None = None, **headers: str) -> AsyncIterator[Stream]:
    """Yield a tail that is read in the background while the block lasts; then close the connection."""
    headers = {"Authorization": f"Bearer {bearer or token(role='auditor')}", **headers}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(30)) as client,
        client.stream("GET", f"{url}/api/v1/audit/tail?{query}", headers=headers) as response,
    ):
        if response.status_code != 200:
            await response.aread()
            yield Stream(response, ended=True)
            return
        stream = Stream(response)
        reading = asyncio.create_task(stream.read())
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.wait([reading])


@asynccontextmanager
async def served(api: Api) -> AsyncIterator[str]:
    """Yield the URL at which the application answers."""
    stop, port = asyncio.Event(), free_port()
    serving = asyncio.create_task(serve(api.app, host="127.0.0.1", port=port, stop=stop))
    url = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{url}/livez")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await until(answers)
        yield url
    finally:
        stop.set()
        await serving
