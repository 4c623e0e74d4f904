"""What the routes work with: the database on behalf of the caller, the audit trail, the token caches."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from sqlalchemy import Select
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
from services.ui_iot.http.problems import NotFound
from services.ui_iot.limits.body_budget import BodyBudget
from services.ui_iot.limits.limit_refusals import LimitRefusals
from services.ui_iot.limits.turns import Timelines, Turns
from services.ui_iot.resources.paging import Order, PageQuery, fetch_page
from services.ui_iot.resources.resource import Resource, fetch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backend:
    """One for the process. issuers: those that refresh sessions, by name."""

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
    """For work on long bodies."""

    def acting(self, caller: Principal) -> AbstractAsyncContextManager[Connection]:
        """A transaction in which the caller changes something."""
        return act(
            pool_of(self.process),
            tenant_id=caller.tenant_id,
            actor=caller.actor,
            service=self.process.service,
            ip_address=caller.ip_address,
        )

    def reading(self, caller: Principal) -> AbstractAsyncContextManager[Connection]:
        """A read-only transaction that sees the caller's tenant."""
        return read_as(pool_of(self.process), tenant_id=caller.tenant_id)

    async def change(self, caller: Principal, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return the result of work in a transaction in which the caller changes something.

        A migration in between undoes the transaction, and work runs once more: it must do nothing but query.
        """

        async def attempt() -> T:
            async with self.acting(caller) as connection:
                return await work(connection)

        return await retried(pool_of(self.process), attempt)

    async def read(self, caller: Principal, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return the result of work in a read-only transaction that sees the caller's tenant."""

        async def attempt() -> T:
            async with self.reading(caller) as connection:
                return await work(connection)

        return await retried(pool_of(self.process), attempt)

    async def find(self, caller: Principal, resource: Resource, identity: int | str) -> dict[str, Any]:
        """Return one resource as its view shows it; raise NotFound when the tenant has none with this id."""
        rows = await self.read(caller, lambda connection: fetch(connection, resource.select(identity)))
        if not rows:
            raise NotFound(f"There is no {resource.kind} {identity}.")
        return rows[0]

    async def page(self, caller: Principal, statement: Select[Any], *, order: Order, page: PageQuery) -> dict[str, Any]:
        """A page of a select over an api view."""
        return await self.read(caller, lambda connection: fetch_page(connection, statement, order=order, page=page))


def pool_of(process: Process) -> Pool:
    """The process's pool; raises ConnectionError until the database was reached for the first time."""
    if process.pool is None:
        raise ConnectionError("the database has not been reached yet")
    return process.pool


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Api = Annotated[Backend, Depends(_backend)]
