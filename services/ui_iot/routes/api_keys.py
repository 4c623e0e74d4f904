"""API keys of machines: /api/v1/api-keys."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, Field

from services.ui_iot.auth.api_keys import SCOPES, ApiKeys, actor_id
from services.ui_iot.auth.guard import ADMINS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Acting, Creating
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import Name, PathId, changes, example, shown
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource

router = APIRouter(prefix="/api/v1/api-keys", tags=["api-keys"], route_class=GuardedRoute)

_EXAMPLE: dict[str, Any] = {"name": "Stock system", "role": "viewer", "scopes": ["alerts:read", "devices:read"]}
_SHOWN: dict[str, Any] = {
    **_EXAMPLE,
    "key_id": 7,
    "created_at": "2026-01-01T09:00:00Z",
    "created_by": "alice",
    "expires_at": "2026-04-01T09:00:00Z",
    "last_used_at": "2026-01-05T12:00:00Z",
    "revoked_at": None,
    "revoked_by": None,
}

KeyRole = Literal["viewer", "auditor", "operator", "admin"]


def _check_scopes(scopes: list[str]) -> list[str]:
    unknown = next((scope for scope in scopes if scope not in SCOPES), None)
    if unknown is not None:
        raise ValueError(f"must each be one of {', '.join(SCOPES)}")
    return sorted(set(scopes))


Scopes = Annotated[
    list[str],
    AfterValidator(_check_scopes),
    Field(min_length=1, max_length=len(SCOPES), json_schema_extra={"items": {"type": "string", "enum": list(SCOPES)}}),
]


class NewApiKey(BaseModel):
    """An API key to create."""

    model_config = example(**_EXAMPLE, expires_in_days=90)
    name: Name
    role: KeyRole
    """Role of requests with this key."""
    scopes: Scopes
    """Parts of the API that the key may use, within the rights of its role."""
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 90
    """Days until the key expires."""


class ApiKey(Versioned):
    """An API key, without its secret."""

    model_config = shown(**_SHOWN)
    version = ("revoked_at",)
    key_id: int
    name: str
    role: str
    scopes: list[str]
    created_at: datetime
    created_by: str | None
    """Id of the actor who created the key."""
    expires_at: datetime
    last_used_at: datetime | None
    """Time of the last accepted request, up to a minute early."""
    revoked_at: datetime | None
    revoked_by: str | None


class ApiKeyWithSecret(ApiKey):
    """An API key with its secret, which is shown only in this answer."""

    model_config = shown(**_SHOWN, key="pulse_key_acme_4f0ZkqYvXb1f9qJp8mQeWc2RkL7sTnU3aVdHgXyZiBo")
    once = ("key",)
    key: str


_RESOURCE = Resource("API key", ApiKey, view="api_keys", key="key_id")


class ApiKeyQuery(PageQuery):
    """Filters of the list of API keys."""

    role: KeyRole | None = None
    """Only keys with this role."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(ADMINS))
async def list_api_keys(api: Api, caller: Caller, query: Annotated[ApiKeyQuery, Query()]) -> dict[str, Any]:
    """List API keys by `key_id`, including expired and revoked ones."""
    return await api.page(caller, _RESOURCE, query)


@router.post(
    "", status_code=201, response_model=ApiKeyWithSecret, responses=problems(409, 413), openapi_extra=allow(ADMINS)
)
async def create_api_key(change: Creating, body: NewApiKey) -> dict[str, Any]:
    """Create an API key for a machine. The key is shown only in this answer."""
    key, digest = ApiKeys.make(change.caller.tenant_id)
    made = {**changes(body), "expires_in_days": body.expires_in_days, "key_hash": digest.hex()}
    return await change.create(_RESOURCE, "select ingest.create_api_key($1)", made, once={"key": key})


@router.get("/{key_id}", response_model=ApiKey, responses=problems(404), openapi_extra=allow(ADMINS))
async def get_api_key(api: Api, caller: Caller, key_id: PathId) -> dict[str, Any]:
    """Return an API key."""
    return await api.find(caller, _RESOURCE, key_id)


@router.post("/{key_id}/revoke", response_model=ApiKey, responses=problems(404), openapi_extra=allow(ADMINS))
async def revoke_api_key(change: Acting, key_id: PathId) -> Any:
    """Revoke an API key. Every process of the API refuses it within 5 seconds."""
    key = await change.apply(_RESOURCE, key_id, "select ingest.revoke_api_key($1)")
    change.api.authenticator.keys.forget(change.caller.tenant_id, actor_id(key_id))
    return key
