"""Who the timers act as: the service itself, in the tenant of Pulse's own events."""

from contextlib import AbstractAsyncContextManager

from services.shared import db


def act_as_system(pool: db.Pool) -> AbstractAsyncContextManager[db.Connection]:
    """One transaction of ops_worker for the tenant 'system', in the current trace."""
    return db.act(pool, tenant_id="system", actor=db.Actor("service", "ops_worker"), service="ops_worker")
