"""Notification routes: /api/v1/routes."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from services.ui_iot.auth.guard import ADMINS, READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Changing, Creating
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import (
    Flag,
    Id,
    Name,
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

router = APIRouter(prefix="/api/v1/routes", tags=["routes"], route_class=GuardedRoute)

_EXAMPLE: dict[str, Any] = {
    "name": "Errors to on call",
    "channel_id": 3,
    "min_severity": "error",
    "rule_id": None,
    "tag": "boilers",
    "enabled": True,
}
_SHOWN: dict[str, Any] = {
    "route_id": 5,
    **_EXAMPLE,
    "created_at": "2026-01-01T09:00:00Z",
    "updated_at": "2026-01-01T09:00:00Z",
}


class NewRoute(BaseModel):
    """A route to create. It matches alerts that meet all its conditions."""

    model_config = example(**_EXAMPLE)
    name: Name
    channel_id: Id
    min_severity: Severity = "info"
    rule_id: Id | None = None
    """Only alerts of this rule. The route is deleted with the rule."""
    tag: Tag | None = None
    """Only alerts of devices with this tag."""
    enabled: Flag = True


class RouteChanges(BaseModel):
    """Changes of a route. Omitted members stay as they are; null clears `rule_id` and `tag`."""

    model_config = example(min_severity="critical", tag=None)
    name: Name = unset()
    channel_id: Id = unset()
    min_severity: Severity = unset()
    rule_id: Id | None = unset()
    tag: Tag | None = unset()
    enabled: Flag = unset()


class Route(Versioned):
    """A route from alerts to a channel."""

    model_config = shown(**_SHOWN)
    version = (*_EXAMPLE, "updated_at")
    route_id: int
    name: str
    channel_id: int
    min_severity: str
    rule_id: int | None
    tag: str | None
    enabled: bool
    created_at: datetime
    updated_at: datetime


_RESOURCE = Resource("route", Route, view="routes", key="route_id")


class RouteQuery(PageQuery):
    """Filters of the list of routes."""

    channel_id: QueryId | None = None
    """Only routes to this channel."""
    rule_id: QueryId | None = None
    """Only routes of this rule."""
    enabled: QueryFlag | None = None
    """Only enabled, or only disabled, routes."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_routes(api: Api, caller: Caller, query: Annotated[RouteQuery, Query()]) -> dict[str, Any]:
    """List routes in the order of their creation."""
    return await api.page(caller, _RESOURCE, query)


@router.post("", status_code=201, response_model=Route, responses=problems(413), openapi_extra=allow(ADMINS))
async def create_route(change: Creating, body: NewRoute) -> Any:
    """Create a route. It applies to alerts that open from now on."""
    return await change.create(_RESOURCE, "select dispatcher.create_route($1)", changes(body))


@router.get("/{route_id}", response_model=Route, responses=problems(404), openapi_extra=allow(READERS))
async def get_route(api: Api, caller: Caller, route_id: PathId) -> dict[str, Any]:
    """Return a route."""
    return await api.find(caller, _RESOURCE, route_id)


@router.patch("/{route_id}", response_model=Route, responses=problems(404, 413), openapi_extra=allow(ADMINS))
async def update_route(change: Changing, route_id: PathId, body: RouteChanges) -> Any:
    """Change a route."""
    return await change.apply(_RESOURCE, route_id, "select dispatcher.update_route($1, $2)", changes(body))


@router.delete("/{route_id}", status_code=204, responses=problems(404), openapi_extra=allow(ADMINS))
async def delete_route(change: Changing, route_id: PathId) -> None:
    """Delete a route."""
    await change.apply(_RESOURCE, route_id, "select dispatcher.delete_route($1)")
