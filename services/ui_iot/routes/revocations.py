"""Revocations of user tokens: /api/v1/revocations."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from services.ui_iot.auth.guard import ADMINS, GuardedRoute, allow
from services.ui_iot.auth.principal import token_mark
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


_MOST_ID_CHARACTERS = 65_536
"""No token is longer."""


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable, as the subject of every accepted token is")
    return text


# Postgres stores no NUL in a text.
_NO_NUL = r"^[^\x00]*$"
ClaimText = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_NO_NUL)]
IdText = Annotated[
    str, StringConstraints(min_length=1, max_length=_MOST_ID_CHARACTERS, pattern=_NO_NUL), AfterValidator(token_mark)
]


class NewRevocation(BaseModel):
    """Conditions of the tokens to refuse. At least one is needed, and a token must meet all that are set."""

    model_config = example(**_EXAMPLE)
    subject: Annotated[ClaimText, AfterValidator(_check_printable)] | None = None
    """Value of the claim `sub`, which is printable in every accepted token."""
    session: IdText | None = None
    """Value of the claim `sid` or `session_state`, a number in decimal. Values over 255 characters are hashed."""
    token_id: IdText | None = None
    """Value of the claim `jti`, a number in decimal. Values over 255 characters are hashed."""
    issued_before: Moment | None = None
    """Upper bound of the claim `iat`. Alone, it revokes all tokens of the tenant that were issued before."""
    reason: Name
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=3660)] = unset()
    """Days until the revocation ends. By default, a revocation with `token_id` or `issued_before` ends when no such
    token can be valid. Any other ends after 30 days, because the provider may issue further tokens of the subject or
    session."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.subject or self.session or self.token_id or self.issued_before):
            raise ValueError("must name subject, session, token_id or issued_before")
        return self


class Revocation(Versioned):
    """A revocation of user tokens."""

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
    """Id of the actor who revoked the tokens."""
    expires_at: datetime
    """Time at which the revocation ends and is removed."""


_RESOURCE = Resource("revocation", Revocation, view="revocations", key="revocation_id")


class RevocationQuery(PageQuery):
    """Filters of the list of revocations."""

    subject: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | None = None
    """Only revocations of this subject."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(ADMINS))
async def list_revocations(api: Api, caller: Caller, query: Annotated[RevocationQuery, Query()]) -> dict[str, Any]:
    """List revocations in force by `revocation_id`."""
    return await api.page(caller, _RESOURCE, query)


@router.post("", status_code=201, response_model=Revocation, responses=problems(409, 413), openapi_extra=allow(ADMINS))
async def revoke_tokens(change: Creating, body: NewRevocation) -> dict[str, Any]:
    """Revoke user tokens. Every process of the API refuses them within 5 seconds.

    Tokens of devices and API keys are not affected.
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
    """Return a revocation."""
    return await api.find(caller, _RESOURCE, revocation_id)


@router.delete("/{revocation_id}", status_code=204, responses=problems(404), openapi_extra=allow(ADMINS))
async def lift_revocation(change: Changing, revocation_id: PathId) -> None:
    """Delete a revocation. Its tokens are accepted again until they expire."""
    await change.apply(_RESOURCE, revocation_id, "select ingest.delete_revocation($1)")
    await change.api.authenticator.revocations.renew()
