"""Client of the run: logins of every kind and changes of the configuration, through the HTTP API."""

import asyncio
import base64
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson

from services.cli.signing_key import SigningKey
from tests.chaos.journal import FORBIDDEN, READ, ClientJournal, draw_trace_id
from tests.chaos.stack import TENANT

LOGIN_CLIENTS = 4
# Longer than a request can wait for the audit trail and then the database.
ANSWER_SECONDS = 20.0
_PAUSE_SECONDS = 0.03
_PAUSE_UNREACHABLE_SECONDS = 0.2

_PATHS: Final = {"device": "devices", "rule": "rules", "channel": "channels", "route": "routes"}
_SECRET: Final = f"whsec_{base64.b64encode(bytes(24)).decode()}"


@dataclass(slots=True)
class ClientTokens:
    """Tokens of a client. `bad`: the token for each act of the journal that is refused."""

    admin: str
    viewer: str
    bad: Mapping[str, str | None]

    @classmethod
    def make(cls, key: SigningKey, stranger: SigningKey) -> "ClientTokens":
        """Return tokens. stranger: a key that the API does not know."""
        admin = key.token(tenant_id=TENANT, role="admin")
        head, body, _ = admin.split(".")
        foreign = stranger.token(tenant_id=TENANT, role="admin")
        return cls(
            admin,
            key.token(tenant_id=TENANT, role="viewer"),
            {
                "missing_token": None,
                "garbage": "not-a-token",
                "expired": key.token(tenant_id=TENANT, role="admin", expired=True),
                "forged": ".".join((head, body, foreign.split(".")[2])),
                "unknown_key": foreign,
                "unknown_device": f"pdt_{TENANT}_{'x' * 43}",
            },
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Client whose requests each have a new trace id and address, and are in the journal."""

    http: httpx.AsyncClient
    journal: ClientJournal
    tokens: ClientTokens
    randomness: random.Random

    async def pause(self) -> None:
        """Wait between two requests."""
        await asyncio.sleep(self.randomness.uniform(0, 2 * _PAUSE_SECONDS))

    async def send(
        self, act: str, *, method: str, path: str, token: str | None, body: Mapping[str, Any] | None = None
    ) -> httpx.Response | None:
        """Return the whole answer; None when there was none."""
        trace_id = draw_trace_id(self.randomness)
        headers = {"X-Trace-ID": trace_id, "X-Forwarded-For": _address(self.randomness)}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.journal.send(trace_id, act)
        try:
            answer = await self.http.request(method, path, headers=headers, json=body)
        except httpx.TransportError as error:
            if isinstance(error, httpx.ConnectError):
                await asyncio.sleep(_PAUSE_UNREACHABLE_SECONDS)
            return None
        self.journal.answer(trace_id, answer.status_code, _reason(answer), answer.headers.get("x-trace-id"))
        return answer

    async def log_in(self) -> None:
        """Make one attempt, good or bad."""
        act = self.randomness.choice((READ, READ, READ, FORBIDDEN, *self.tokens.bad))
        if act == FORBIDDEN:
            await self.send(act, method="DELETE", path="/api/v1/rules/1", token=self.tokens.viewer)
        else:
            token = self.tokens.admin if act == READ else self.tokens.bad[act]
            await self.send(act, method="GET", path="/api/v1/devices?limit=1", token=token)
        await self.pause()

    async def change(
        self, entity: str, *, method: str, place: str = "", body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return what the API answered to a change it made; None when it made none or did not say."""
        act = f"config.{entity}_" + {"POST": "created", "PATCH": "updated", "DELETE": "deleted"}[method]
        path = f"/api/v1/{_PATHS[entity]}{place}"
        answer = await self.send(act, method=method, path=path, token=self.tokens.admin, body=body)
        await self.pause()
        if answer is None or not answer.is_success:
            return None
        made: dict[str, Any] = orjson.loads(answer.content or b"{}")
        return made

    async def live(self, entity: str, body: Mapping[str, Any], names: Iterator[str]) -> None:
        """Create, change and delete an entity, until a response is missing."""
        made = await self.change(entity, method="POST", body=body)
        if made is None:
            return
        place = f"/{made[f'{entity}_id']}"
        for _ in range(self.randomness.randrange(4)):
            changed = {"name": next(names), "enabled": self.randomness.random() < 0.5}
            if await self.change(entity, method="PATCH", place=place, body=changed) is None:
                return
        await self.change(entity, method="DELETE", place=place)


@dataclass(slots=True)
class AuditTraffic:
    """Requests that go on until stop()."""

    url: str
    journal: ClientJournal
    tokens: ClientTokens
    seed: int
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Send no new requests. run() returns after the last response."""
        self._stopping.set()

    async def run(self) -> None:
        """Send requests until stop()."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with (
            httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=ANSWER_SECONDS, limits=limits) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(LOGIN_CLIENTS):
                tasks.create_task(self._log_in(self._caller(http, f"login-{number}")))
            for entity in _PATHS:
                tasks.create_task(self._change(self._caller(http, entity), entity))

    def _caller(self, http: httpx.AsyncClient, name: str) -> Caller:
        return Caller(http, self.journal, self.tokens, random.Random(f"{self.seed}/{name}"))

    async def _log_in(self, caller: Caller) -> None:
        while not self._stopping.is_set():
            await caller.log_in()

    async def _change(self, caller: Caller, entity: str) -> None:
        names = (f"{entity}-{self.seed}-{number}" for number in itertools.count())
        channel_id = None
        while not self._stopping.is_set():
            if entity == "route" and channel_id is None:
                made = await caller.change("channel", method="POST", body=_new("channel", f"for-{next(names)}"))
                channel_id = None if made is None else made["channel_id"]
            else:
                await caller.live(entity, _new(entity, next(names), channel_id=channel_id), names)


def _new(entity: str, name: str, *, channel_id: int | None = None) -> dict[str, Any]:
    bodies: dict[str, dict[str, Any]] = {
        "device": {"device_id": name, "tags": ["chaos"]},
        "rule": {"name": name, "metric": "temperature", "operator": ">", "threshold": 80.5},
        "channel": {
            "name": name,
            "kind": "webhook",
            "config": {"url": f"https://hooks.example.com/{name}", "secret": _SECRET},
        },
        "route": {"name": name, "channel_id": channel_id, "min_severity": "error"},
    }
    return bodies[entity]


def _address(randomness: random.Random) -> str:
    return f"10.{randomness.randrange(256)}.{randomness.randrange(256)}.{randomness.randrange(1, 255)}"


def _reason(answer: httpx.Response) -> str:
    if answer.is_success or not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return ""
    return str(orjson.loads(answer.content).get("reason") or "")
