"""The actor of timers: the service itself, in the tenant of Pulse's own events, with its own role."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from asyncpg import InsufficientPrivilegeError

from services.shared import db


def act_as_system(pool: db.Pool) -> AbstractAsyncContextManager[db.Connection]:
    """Open a transaction of ops_worker for the tenant 'system', in the current trace."""
    return db.act(pool, tenant_id="system", actor=db.Actor("service", "ops_worker"), service="ops_worker")


def name_the_role(step: Callable[[db.Pool], Awaitable[int]]) -> Callable[[db.Pool], Awaitable[int]]:
    """Return the step with errors about privileges that name the setting of the login."""

    async def run(pool: db.Pool) -> int:
        try:
            return await step(pool)
        except InsufficientPrivilegeError as refused:
            raise InsufficientPrivilegeError(
                f"{refused}: PULSE_OPS_DATABASE_URL must be a login with the rights of pulse_ops"
            ) from refused

    return run
