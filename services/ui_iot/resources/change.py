"""Changes of resources: the preconditions, idempotency key and effect of a request share one transaction."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from services.shared.db import Connection
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api, Backend
from services.ui_iot.resources.entity_tags import Preconditions
from services.ui_iot.resources.idempotency import HEADER, IdempotencyKey
from services.ui_iot.resources.resource import Resource

Show = Callable[[Connection], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """A change on behalf of the caller. key: None if a repeated request takes effect again."""

    api: Backend
    caller: Principal
    path: str
    response: Response
    preconditions: Preconditions
    key: IdempotencyKey | None = None

    async def create(
        self, resource: Resource, query: str, *arguments: Any, once: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the resource that one function call created. once: members that only this answer shows."""

        async def effect(connection: Connection) -> dict[str, Any]:
            made: dict[str, Any] = await connection.fetchval(query, *await _prepared(connection, arguments))
            return made

        created = await self._carry_out(effect, once or {})
        self.response.headers["Location"] = f"{self.path}/{created[resource.key]}"
        return created

    async def apply(
        self,
        resource: Resource,
        identity: int | str,
        query: str,
        *arguments: Any,
        once: Mapping[str, Any] | None = None,
        show: Show | None = None,
    ) -> dict[str, Any]:
        """Return the resource after one function call. show: reads the answer if the function does not return it."""

        async def effect(connection: Connection) -> dict[str, Any]:
            if self.preconditions.are_set:
                tag = await resource.lock(connection, identity)
                if tag is not None:  # for a missing resource, the function raises the error
                    self.preconditions.check_change(tag)
            prepared = await _prepared(connection, arguments)
            changed: dict[str, Any] = await connection.fetchval(query, identity, *prepared)
            return changed if show is None else await show(connection)

        return await self._carry_out(effect, once or {})

    async def _carry_out(
        self, effect: Callable[[Connection], Awaitable[dict[str, Any]]], once: Mapping[str, Any]
    ) -> dict[str, Any]:
        if once:
            self.response.headers["Cache-Control"] = "no-store"

        async def work(connection: Connection) -> dict[str, Any]:
            kept = await self.key.claim(connection) if self.key is not None else None
            if kept is not None:
                return kept
            answer = await effect(connection)
            if self.key is not None:
                await self.key.keep(connection, answer, once)
            return {**answer, **once} if once else answer

        return await self.api.change(self.caller, work)


async def _prepared(connection: Connection, arguments: Sequence[Any]) -> list[Any]:
    return [await argument(connection) if callable(argument) else argument for argument in arguments]


_IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="ETags, one of which the resource must still have, else 412. "
        "Without the header nothing is compared.",
    ),
]
_Key = Annotated[
    str | None,
    Header(
        alias=HEADER,
        description="A random text of up to 255 characters, such as a UUID. A request that is sent again within 24 "
        "hours with the same key and body has no second effect and gets the same answer; with another body it gets "
        "422.",
    ),
]


async def _changing(
    request: Request, response: Response, api: Api, caller: Caller, _if_match: _IfMatch = None
) -> ResourceChange:
    return ResourceChange(api, caller, request.scope["path"], response, Preconditions.read(request))


async def _creating(
    request: Request, response: Response, api: Api, caller: Caller, _key: _Key = None
) -> ResourceChange:
    key = await IdempotencyKey.read(request, caller)
    return ResourceChange(api, caller, request.scope["path"], response, Preconditions(None, None), key)


async def _acting(
    request: Request, response: Response, api: Api, caller: Caller, _if_match: _IfMatch = None, _key: _Key = None
) -> ResourceChange:
    change = await _changing(request, response, api, caller)
    return replace(change, key=await IdempotencyKey.read(request, caller))


# Dependencies for PATCH and DELETE of a resource, POST to a list, and POST to a resource.
Changing = Annotated[ResourceChange, Depends(_changing)]
Creating = Annotated[ResourceChange, Depends(_creating)]
Acting = Annotated[ResourceChange, Depends(_acting)]
