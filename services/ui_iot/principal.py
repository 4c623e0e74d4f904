"""Who a request comes from, once that is proven."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from services.shared.db import Actor


@dataclass(frozen=True, slots=True)
class Principal:
    """A user of a tenant, or one of its devices."""

    tenant_id: str
    role: str
    """viewer, operator, admin, auditor, or device."""
    actor: Actor
    is_gateway: bool = False
    """Whether a device may report readings of the tenant's other devices."""
    ip_address: str | None = None
    """Where this one request comes from; not part of what is remembered."""


def _principal(request: Request) -> Principal:
    principal: Principal = request.scope["pulse.principal"]
    return replace(principal, ip_address=request.scope["pulse.client_address"])


Caller = Annotated[Principal, Depends(_principal)]
