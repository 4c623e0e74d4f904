"""The identity providers of the running process: their keys, checks of their tokens, their token endpoints."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from services.ui_iot.issuers import IssuerEntry
from services.ui_iot.jwks import Jwks
from services.ui_iot.oidc import Issuer, KeyFile, KeyUrl
from services.ui_iot.tokens import TokenVerifier
from services.ui_iot.user_tokens import TokenCheck, TokensByIssuer, UserTokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Providers:
    """What the process knows of its issuers. users: None when no issuer is configured."""

    users: TokenCheck | None
    token_endpoints: Mapping[str, Issuer]
    """By issuer: where refresh tokens are exchanged."""
    keys: Sequence[Jwks]


@asynccontextmanager
async def open_providers(
    entries: Sequence[IssuerEntry], client: httpx.AsyncClient, *, max_token_bytes: int
) -> AsyncIterator[Providers]:
    """Fetch the keys of all issuers, as far as they answer, and renew them until the end."""
    if not entries:
        log.warning(
            "no issuer of user tokens: set PULSE_OIDC_ISSUER, or PULSE_JWT_ISSUER with PULSE_JWKS_URL or"
            " PULSE_JWKS_FILE, or PULSE_OIDC_ISSUERS_FILE; until then only devices are let in"
        )
        yield Providers(None, {}, ())
        return
    issuers = {entry.issuer: _make_issuer(entry, client) for entry in entries}
    keys = {
        entry.issuer: Jwks(_key_source(entry, client, issuers[entry.issuer]), issuer=entry.issuer) for entry in entries
    }
    checks = {
        entry.issuer: UserTokens(keys[entry.issuer], TokenVerifier(entry.trust(max_token_bytes))) for entry in entries
    }
    await asyncio.gather(*(each.newer() for each in keys.values()))
    only = next(iter(checks.values())) if len(checks) == 1 else None
    try:
        yield Providers(
            users=only or TokensByIssuer(checks, max_token_bytes=max_token_bytes),
            token_endpoints={entry.issuer: issuers[entry.issuer] for entry in entries if entry.client_id is not None},
            keys=tuple(keys.values()),
        )
    finally:
        await asyncio.gather(*(each.close() for each in keys.values()))


def _make_issuer(entry: IssuerEntry, client: httpx.AsyncClient) -> Issuer:
    secret = entry.client_secret
    return Issuer(
        client,
        entry.discovery or entry.issuer,
        issuer=entry.issuer,
        client_id=entry.client_id or "",
        client_secret=secret.get_secret_value() if secret else None,
        client_auth=entry.client_auth,
    )


def _key_source(entry: IssuerEntry, client: httpx.AsyncClient, issuer: Issuer) -> KeyFile | KeyUrl | Issuer:
    if entry.jwks_file is not None:
        return KeyFile(entry.jwks_file)
    return issuer if entry.jwks_url is None else KeyUrl(client, entry.jwks_url)
