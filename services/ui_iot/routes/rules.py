"""Alert rules: /api/v1/rules."""

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
from services.ui_iot.resources.fields import (
    DeviceId,
    Flag,
    Id,
    Metric,
    Name,
    Number,
    Operator,
    PathId,
    QueryFlag,
    QueryId,
    Severity,
    Tag,
    changes,
    example,
    shown,
    unset,
)
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource

router = APIRouter(prefix="/api/v1/rules", tags=["rules"], route_class=GuardedRoute)

ForSeconds = Annotated[int, Field(strict=True, ge=0, le=604_800)]

_EXAMPLE: dict[str, Any] = {
    "name": "Boiler too hot",
    "metric": "temperature",
    "operator": ">",
    "threshold": 80.0,
    "for_seconds": 60,
    "severity": "critical",
    "device_id": None,
    "tag": "boilers",
    "policy_id": None,
    "enabled": True,
}
_SHOWN: dict[str, Any] = {
    "rule_id": 7,
    **_EXAMPLE,
    "disabled_reason": None,
    "created_at": "2026-01-01T09:00:00Z",
    "updated_at": "2026-01-01T09:00:00Z",
}


class NewRule(BaseModel):
    """A rule to create. An alert opens once `metric operator threshold` has held for `for_seconds`."""

    model_config = example(**_EXAMPLE)
    name: Name
    metric: Metric
    operator: Operator
    threshold: Number
    for_seconds: ForSeconds = 0
    severity: Severity = "warning"
    device_id: DeviceId | None = None
    """The device that the rule applies to. Without device and tag, it applies to all devices."""
    tag: Tag | None = None
    """The tag of the devices that the rule applies to."""
    policy_id: Id | None = None
    """Escalation policy of the rule's alerts."""
    enabled: Flag = True


class RuleChanges(BaseModel):
    """Changes of a rule. Omitted members stay as they are; null clears `device_id`, `tag` and `policy_id`."""

    model_config = example(threshold=85.5, tag=None)
    name: Name = unset()
    metric: Metric = unset()
    operator: Operator = unset()
    threshold: Number = unset()
    for_seconds: ForSeconds = unset()
    severity: Severity = unset()
    device_id: DeviceId | None = unset()
    tag: Tag | None = unset()
    policy_id: Id | None = unset()
    enabled: Flag = unset()


class Rule(Versioned):
    """An alert rule."""

    model_config = shown(**_SHOWN)
    version = (*_EXAMPLE, "updated_at")
    rule_id: int
    name: str
    metric: str
    operator: str
    threshold: float
    for_seconds: int
    severity: str
    device_id: str | None
    tag: str | None
    policy_id: int | None
    enabled: bool
    disabled_reason: str | None
    """The reason if Pulse disabled the rule, such as the deletion of its device. Enabling the rule clears it."""
    created_at: datetime
    updated_at: datetime


_RESOURCE = Resource("rule", Rule, view="rules", key="rule_id")


class RuleQuery(PageQuery):
    """Filters of the list of rules."""

    metric: Metric | None = None
    """Only rules about this metric."""
    severity: Severity | None = None
    """Only rules of this severity."""
    device_id: Annotated[DeviceId | None, Field(description="Only rules of this device.")] = None
    tag: Annotated[Tag | None, Field(description="Only rules of this tag.")] = None
    policy_id: QueryId | None = None
    """Only rules with this escalation policy."""
    enabled: QueryFlag | None = None
    """Only enabled, or only disabled, rules."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_rules(api: Api, caller: Caller, query: Annotated[RuleQuery, Query()]) -> dict[str, Any]:
    """List rules in the order of their creation."""
    return await api.page(caller, _RESOURCE, query)


@router.post("", status_code=201, response_model=Rule, responses=problems(413), openapi_extra=allow(ADMINS))
async def create_rule(change: Creating, body: NewRule) -> Any:
    """Create a rule and evaluate it with the last known values.

    A value that arrived within the last 24 hours counts as if it arrived now: an alert opens at once, or `for_seconds`
    starts.
    """
    return await change.create(_RESOURCE, "select evaluator.create_rule($1)", changes(body))


@router.get("/{rule_id}", response_model=Rule, responses=problems(404), openapi_extra=allow(READERS))
async def get_rule(api: Api, caller: Caller, rule_id: PathId) -> dict[str, Any]:
    """Return a rule."""
    return await api.find(caller, _RESOURCE, rule_id)


@router.patch("/{rule_id}", response_model=Rule, responses=problems(404, 413), openapi_extra=allow(ADMINS))
async def update_rule(change: Changing, rule_id: PathId, body: RuleChanges) -> Any:
    """Change a rule.

    An alert whose condition still holds stays open and keeps its acknowledgement and silence. It gets the new severity
    and name, and its channels get an `updated` notification. Other alerts close with the reason `rule changed` or
    `rule disabled`. A change of the metric closes all alerts.

    Devices that breach only the new condition are evaluated with their last known value, as for a new rule. A pending
    breach keeps its start when `for_seconds` changes and restarts when the comparison changes.
    """
    return await change.apply(_RESOURCE, rule_id, "select evaluator.update_rule($1, $2)", changes(body))


@router.delete("/{rule_id}", status_code=204, responses=problems(404), openapi_extra=allow(ADMINS))
async def delete_rule(change: Changing, rule_id: PathId) -> None:
    """Delete a rule and its own routes, and close its alerts."""
    await change.apply(_RESOURCE, rule_id, "select evaluator.delete_rule($1)")
