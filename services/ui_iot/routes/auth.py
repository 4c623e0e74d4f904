"""New access tokens from the issuer: POST /auth/refresh."""

from dataclasses import replace
from typing import Annotated

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.shared.audit import AuditBlocked
from services.ui_iot.auth.authenticator import claimed_account
from services.ui_iot.auth.client_address import Address
from services.ui_iot.auth.oidc import Granted, Issuer
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.request_context import Refreshed, context_of
from services.ui_iot.backend import Api, Backend
from services.ui_iot.http.json_route import JsonRoute
from services.ui_iot.http.problems import RequestRefused, Unprocessable
from services.ui_iot.openapi import problems
from services.ui_iot.resources.fields import example, shown

router = APIRouter(prefix="/auth", tags=["auth"], route_class=JsonRoute)

_NO_ISSUER = Refusal("auth_unavailable", "No issuer that gives out tokens is configured.", retry_after_seconds=60)


class RefreshRequest(BaseModel):
    """A refresh token to exchange."""

    model_config = example(refresh_token="the refresh token of the session")  # noqa: S106  # an example
    refresh_token: Annotated[str, Field(min_length=1, max_length=8192)]
    issuer: Annotated[str, Field(max_length=500)] | None = None
    """Issuer of the token. Required if several issuers are configured."""


class Tokens(BaseModel):
    """The issuer's answer, unchanged."""

    model_config = shown(access_token="eyJhbGciOi…", token_type="Bearer", expires_in=300)  # noqa: S106  # an example
    access_token: str
    token_type: str = "Bearer"  # noqa: S105  # its kind, not the token
    expires_in: int | None = None
    refresh_token: str | None = None


@router.post("/refresh", response_model=Tokens, responses=problems(413))
async def refresh_token(request: Request, api: Api, body: RefreshRequest) -> Response:
    """Exchange a refresh token for a new access token at the issuer. No other token is needed."""
    context = context_of(request.scope)
    result = await _refresh(api, _issuer_of(api, body), body.refresh_token, address=context.address)
    if isinstance(result, Refusal):
        await context.settle(result)
        raise RequestRefused(result)
    await context.settle(Refreshed(await _identify(api, result)))
    return Response(orjson.dumps(result.answer), media_type="application/json", headers={"Cache-Control": "no-store"})


def _issuer_of(api: Backend, body: RefreshRequest) -> Issuer | None:
    """Return the issuer to ask, or None if none is configured. A token never goes to a guessed issuer."""
    if body.issuer is not None and body.issuer not in api.issuers:
        raise Unprocessable("issuer is not an issuer that refreshes sessions here.")
    if body.issuer is None and len(api.issuers) > 1:
        raise Unprocessable("Several issuers are configured: name the token's issuer in issuer.")
    return api.issuers[body.issuer] if body.issuer else next(iter(api.issuers.values()), None)


async def _refresh(api: Backend, issuer: Issuer | None, token: str, *, address: Address | None) -> Granted | Refusal:
    if issuer is None:
        return _NO_ISSUER
    if api.audit.is_blocked:
        # Otherwise the issuer would consume the refresh token for an answer that must be held back.
        raise AuditBlocked
    result = await api.refreshes.exchange(issuer, token, address)
    if isinstance(result, Granted):
        return result
    return api.authenticator.charge(replace(result, account=claimed_account(token)), address)


async def _identify(api: Backend, granted: Granted) -> Principal | None:
    """Return the user of the new token, or None. An issuer may also grant tokens for other audiences."""
    users = api.authenticator.users
    result = await users.check(granted.answer["access_token"]) if users is not None else None
    return result if isinstance(result, Principal) else None
