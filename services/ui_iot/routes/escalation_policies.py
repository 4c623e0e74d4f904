"""Escalation policies: /api/v1/escalation-policies."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.ui_iot.auth.guard import ADMINS, READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Changing, Creating
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import Id, Name, PathId, changes, example, shown, unset
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource

router = APIRouter(prefix="/api/v1/escalation-policies", tags=["escalation policies"], route_class=GuardedRoute)

_STEPS: list[dict[str, Any]] = [{"after_minutes": 5.0, "channel_id": 3}, {"after_minutes": 15.0, "channel_id": 4}]
_EXAMPLE: dict[str, Any] = {"name": "Wake somebody", "steps": _STEPS}
_SHOWN: dict[str, Any] = {
    "policy_id": 2,
    **_EXAMPLE,
    "created_at": "2026-01-01T09:00:00Z",
    "updated_at": "2026-01-01T09:00:00Z",
}


class Step(BaseModel):
    """Whom to tell when the alert is still open and nobody has acknowledged it."""

    model_config = example(after_minutes=5.0, channel_id=3)
    after_minutes: Annotated[float, Field(strict=True, ge=0, le=10_080, allow_inf_nan=False)]
    """Minutes after the alert opened; not less than the step before."""
    channel_id: Id


Steps = Annotated[list[Step], Field(min_length=1, max_length=20)]


class NewPolicy(BaseModel):
    """A policy to be added."""

    model_config = example(**_EXAMPLE)
    name: Name
    steps: Steps


class PolicyChanges(BaseModel):
    """What is to change; steps are replaced as a whole."""

    model_config = example(steps=_STEPS)
    name: Name = unset()
    steps: Steps = unset()


class Policy(Versioned):
    """A policy."""

    model_config = shown(**_SHOWN)
    version = (*_EXAMPLE, "updated_at")
    policy_id: int
    name: str
    steps: list[Step]
    created_at: datetime
    updated_at: datetime


_RESOURCE = Resource("escalation policy", Policy, view="escalation_policies", key="policy_id")


class PolicyQuery(PageQuery):
    """Which policies."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_policies(api: Api, caller: Caller, query: Annotated[PolicyQuery, Query()]) -> dict[str, Any]:
    """List the escalation policies in the order of their making."""
    return await api.page(caller, _RESOURCE, query)


@router.post("", status_code=201, response_model=Policy, responses=problems(409, 413), openapi_extra=allow(ADMINS))
async def create_policy(change: Creating, body: NewPolicy) -> Any:
    """Add a policy; rules name it."""
    return await change.create(_RESOURCE, "select ops.create_policy($1)", changes(body))


@router.get("/{policy_id}", response_model=Policy, responses=problems(404), openapi_extra=allow(READERS))
async def get_policy(api: Api, caller: Caller, policy_id: PathId) -> dict[str, Any]:
    """Show one policy."""
    return await api.find(caller, _RESOURCE, policy_id)


@router.patch("/{policy_id}", response_model=Policy, responses=problems(404, 409, 413), openapi_extra=allow(ADMINS))
async def update_policy(change: Changing, policy_id: PathId, body: PolicyChanges) -> Any:
    """Change a policy. An alert that escalates already goes on at the step with the number it had reached."""
    return await change.apply(_RESOURCE, policy_id, "select ops.update_policy($1, $2)", changes(body))


@router.delete("/{policy_id}", status_code=204, responses=problems(404, 409), openapi_extra=allow(ADMINS))
async def delete_policy(change: Changing, policy_id: PathId) -> None:
    """Remove a policy. While rules name it, it stays."""
    await change.apply(_RESOURCE, policy_id, "select ops.delete_policy($1)")
