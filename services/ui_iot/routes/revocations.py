"""User tokens that are refused before they expire: /api/v1/revocations."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from services.ui_iot.auth.guard import ADMINS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.auth.revocations import lasting_seconds
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Changing, Creating
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import Moment, Name, PathId, changes, example, shown, unset
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource

router = APIRouter(prefix="/api/v1/revocations", tags=["revocations"], route_class=GuardedRoute)

_EXAMPLE: dict[str, Any] = {
    "subject": "mallory",
    "issued_before": "2026-01-05T12:00:00Z",
    "reason": "Laptop stolen",
}
_SHOWN: dict[str, Any] = {
    **_EXAMPLE,
    "revocation_id": 3,
    "session": None,
    "token_id": None,
    "created_at": "2026-01-05T12:00:00Z",
    "created_by": "alice",
    "expires_at": "2026-01-06T12:01:00Z",
}


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable: no token with another subject is accepted")
    return text


# Postgres stores no NUL in a text.
ClaimText = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class NewRevocation(BaseModel):
    """Tokens to be refused: those that meet every condition named here, one at least."""

    model_config = example(**_EXAMPLE)
    subject: Annotated[ClaimText, AfterValidator(_check_printable)] | None = None
    """Tokens with this claim sub, which is printable in every token that is accepted."""
    session: ClaimText | None = None
    """Tokens with this claim sid or session_state."""
    token_id: ClaimText | None = None
    """The token with this claim jti."""
    issued_before: Moment | None = None
    """Tokens with a claim iat before this time; alone: all tokens of the tenant that were issued before it."""
    reason: Name
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=3660)] = unset()
    """How long the tokens are refused. Default with token_id or issued_before: until no such token can be valid.
    Otherwise 30 days, because the provider may issue further tokens of the subject or session."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.subject or self.session or self.token_id or self.issued_before):
            raise ValueError("must name subject, session, token_id or issued_before")
        return self


class Revocation(Versioned):
    """User tokens that are refused."""

    model_config = shown(**_SHOWN)
    version = ("revocation_id",)
    revocation_id: int
    subject: str | None
    session: str | None
    token_id: str | None
    issued_before: datetime | None
    reason: str
    created_at: datetime
    created_by: str | None
    """Id of the actor that revoked them."""
    expires_at: datetime
    """When the revocation ends and is removed."""


_RESOURCE = Resource("revocation", Revocation, view="revocations", key="revocation_id")


class RevocationQuery(PageQuery):
    """Which revocations."""

    subject: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | None = None
    """Only those of this subject."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(ADMINS))
async def list_revocations(api: Api, caller: Caller, query: Annotated[RevocationQuery, Query()]) -> dict[str, Any]:
    """List the revocations that are in force, by revocation_id."""
    return await api.page(caller, _RESOURCE, query)


@router.post("", status_code=201, response_model=Revocation, responses=problems(409, 413), openapi_extra=allow(ADMINS))
async def revoke_tokens(change: Creating, body: NewRevocation) -> dict[str, Any]:
    """Refuse user tokens before they expire, on every process of the API within 5 seconds.

    Neither devices nor API keys are affected: they have tokens of their own.
    """
    seconds = lasting_seconds(
        days=body.expires_in_days,
        ends_by_itself=body.token_id is not None or body.issued_before is not None,
        max_token_seconds=change.api.settings.max_token_seconds,
    )
    made = {**changes(body), "expires_in_seconds": seconds}
    created = await change.create(_RESOURCE, "select ingest.create_revocation($1)", made)
    await change.api.authenticator.revocations.renew()
    return created


@router.get("/{revocation_id}", response_model=Revocation, responses=problems(404), openapi_extra=allow(ADMINS))
async def get_revocation(api: Api, caller: Caller, revocation_id: PathId) -> dict[str, Any]:
    """Show one revocation."""
    return await api.find(caller, _RESOURCE, revocation_id)


@router.delete("/{revocation_id}", status_code=204, responses=problems(404), openapi_extra=allow(ADMINS))
async def lift_revocation(change: Changing, revocation_id: PathId) -> None:
    """Lift a revocation: the tokens that it named are accepted again until they expire."""
    await change.apply(_RESOURCE, revocation_id, "select ingest.delete_revocation($1)")
    await change.api.authenticator.revocations.renew()
