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
_EXAMPLE: dict[str, Any] = {"name": "Wake the on-call engineer", "steps": _STEPS}
_SHOWN: dict[str, Any] = {
    "policy_id": 2,
    **_EXAMPLE,
    "created_at": "2026-01-01T09:00:00Z",
    "updated_at": "2026-01-01T09:00:00Z",
}


class Step(BaseModel):
    """A channel to notify if the alert is still open and not acknowledged."""

    model_config = example(after_minutes=5.0, channel_id=3)
    after_minutes: Annotated[float, Field(strict=True, ge=0, le=10_080, allow_inf_nan=False)]
    """Minutes after the alert opened, at least those of the previous step."""
    channel_id: Id


Steps = Annotated[list[Step], Field(min_length=1, max_length=20)]


class NewPolicy(BaseModel):
    """An escalation policy to create."""

    model_config = example(**_EXAMPLE)
    name: Name
    steps: Steps


class PolicyChanges(BaseModel):
    """Changes of an escalation policy. A new list replaces all steps."""

    model_config = example(steps=_STEPS)
    name: Name = unset()
    steps: Steps = unset()


class Policy(Versioned):
    """An escalation policy."""

    model_config = shown(**_SHOWN)
    version = (*_EXAMPLE, "updated_at")
    policy_id: int
    name: str
    steps: list[Step]
    created_at: datetime
    updated_at: datetime


_RESOURCE = Resource("escalation policy", Policy, view="escalation_policies", key="policy_id")


class PolicyQuery(PageQuery):
    """The list of escalation policies has no filters."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_policies(api: Api, caller: Caller, query: Annotated[PolicyQuery, Query()]) -> dict[str, Any]:
    """List escalation policies in the order of their creation."""
    return await api.page(caller, _RESOURCE, query)


@router.post("", status_code=201, response_model=Policy, responses=problems(409, 413), openapi_extra=allow(ADMINS))
async def create_policy(change: Creating, body: NewPolicy) -> Any:
    """Create an escalation policy, for use in rules."""
    return await change.create(_RESOURCE, "select ops.create_policy($1)", changes(body))


@router.get("/{policy_id}", response_model=Policy, responses=problems(404), openapi_extra=allow(READERS))
async def get_policy(api: Api, caller: Caller, policy_id: PathId) -> dict[str, Any]:
    """Return an escalation policy."""
    return await api.find(caller, _RESOURCE, policy_id)


@router.patch("/{policy_id}", response_model=Policy, responses=problems(404, 409, 413), openapi_extra=allow(ADMINS))
async def update_policy(change: Changing, policy_id: PathId, body: PolicyChanges) -> Any:
    """Change an escalation policy. Alerts that already escalate continue at the step number that they had reached."""
    return await change.apply(_RESOURCE, policy_id, "select ops.update_policy($1, $2)", changes(body))


@router.delete("/{policy_id}", status_code=204, responses=problems(404, 409), openapi_extra=allow(ADMINS))
async def delete_policy(change: Changing, policy_id: PathId) -> None:
    """Delete an escalation policy. A policy that rules use cannot be deleted."""
    await change.apply(_RESOURCE, policy_id, "select ops.delete_policy($1)")
