"""The services that routes use: database access on behalf of the caller, audit logger, authentication, limits."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from sqlalchemy import ColumnElement
from starlette.requests import Request

from services.shared.audit import AuditLogger
from services.shared.db import Connection, Pool, act, read_as, retried
from services.shared.server import Process
from services.shared.settings import UiSettings
from services.ui_iot.audit.tails import Tails
from services.ui_iot.auth.authenticator import Authenticator
from services.ui_iot.auth.oidc import Issuer
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refresh_gate import RefreshGate
from services.ui_iot.limits.body_budget import BodyBudget
from services.ui_iot.limits.limit_refusals import LimitRefusals
from services.ui_iot.limits.turns import Timelines, Turns
from services.ui_iot.resources.paging import PageQuery, fetch_page
from services.ui_iot.resources.resource import Resource

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backend:
    """The services of the process. issuers: issuers that refresh sessions, by name."""

    settings: UiSettings
    process: Process
    audit: AuditLogger
    authenticator: Authenticator
    issuers: Mapping[str, Issuer]
    tails: Tails
    refreshes: RefreshGate
    refusals: LimitRefusals
    timelines: Timelines
    bodies: BodyBudget
    turns: Turns = field(default_factory=Turns)
    """For work on large bodies."""

    def acting(self, caller: Principal) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction in which the caller changes data."""
        return act(
            pool_of(self.process),
            tenant_id=caller.tenant_id,
            actor=caller.actor,
            service=self.process.service,
            ip_address=caller.ip_address,
        )

    def reading(self, caller: Principal) -> AbstractAsyncContextManager[Connection]:
        """Open a read-only transaction that sees the caller's tenant."""
        return read_as(pool_of(self.process), tenant_id=caller.tenant_id)

    async def change(self, caller: Principal, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return the result of work in a transaction in which the caller changes data.

        If a migration breaks the transaction, work runs again. It must have no effect outside the database.
        """

        async def attempt() -> T:
            async with self.acting(caller) as connection:
                return await work(connection)

        return await retried(pool_of(self.process), attempt)

    async def read(self, caller: Principal, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return the result of work in a read-only transaction that sees the caller's tenant. It may run twice."""

        async def attempt() -> T:
            async with self.reading(caller) as connection:
                return await work(connection)

        return await retried(pool_of(self.process), attempt)

    async def find(self, caller: Principal, resource: Resource, identity: int | str) -> dict[str, Any]:
        """Return one resource as its view shows it. Raises NotFound if the tenant has none with this id."""
        return await self.read(caller, lambda connection: resource.get(connection, identity))

    async def page(
        self, caller: Principal, resource: Resource, query: PageQuery, *conditions: ColumnElement[bool]
    ) -> dict[str, Any]:
        """Return a page of the resources that the query and the conditions select."""
        statement = resource.select_matching(query).where(*conditions)
        return await self.read(
            caller, lambda connection: fetch_page(connection, statement, order=resource.order, page=query)
        )


def pool_of(process: Process) -> Pool:
    """Return the process's pool. Raises ConnectionError until the database was reached for the first time."""
    if process.pool is None:
        raise ConnectionError("the database has not been reached yet")
    return process.pool


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Api = Annotated[Backend, Depends(_backend)]
