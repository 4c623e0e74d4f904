"""Authentication of requests: the order of the checks, and the sources that a failure counts against."""

import base64
from dataclasses import dataclass, replace

import asyncpg
import orjson
from starlette.types import Scope

from services.shared.audit import device_account
from services.shared.db import UNAVAILABLE
from services.ui_iot.auth.api_keys import ApiKeys
from services.ui_iot.auth.claims import LONGEST_SUBJECT
from services.ui_iot.auth.client_address import Address, ClientAddress
from services.ui_iot.auth.credentials import Headers, find_token
from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.auth.failure_limit import FailureLimit, Source
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.revocations import Revocations
from services.ui_iot.auth.stored_tokens import StoredTokens
from services.ui_iot.auth.user_tokens import TokenCheck

# The maximum of PULSE_OIDC_MAX_TOKEN_BYTES: padding must not hide the account that a checked token names.
_LONGEST_TOKEN_BYTES = 32_768
_NO_ISSUER = Refusal("auth_unavailable", "No issuer of user tokens is configured.", retry_after_seconds=60)
_NO_DATABASE = Refusal("auth_unavailable", "The token cannot be checked now.", retry_after_seconds=2)
_NO_REVOCATIONS = Refusal("auth_unavailable", "Revoked tokens cannot be recognized now.", retry_after_seconds=2)


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Checks the token of each request.

    A token is checked before any limit applies: a valid token is accepted even if its address has many failures. Only
    failures are counted and limited.
    """

    addresses: ClientAddress
    limit: FailureLimit
    """Failures by address."""
    accounts: FailureLimit
    """Failures by account, kept apart from addresses because an attacker can name any number of accounts."""
    devices: DeviceTokens
    keys: ApiKeys
    users: TokenCheck | None
    """None if no issuer is configured."""
    revocations: Revocations

    def address_of(self, scope: Scope, headers: Headers) -> Address | None:
        """Return the address that the request comes from."""
        client = scope.get("client")
        return self.addresses.of(client[0] if client else None, headers.forwarded_for)

    async def authenticate(self, headers: Headers, address: Address | None, *, method: str) -> Principal | Refusal:
        """Return the sender of the request, or the reason for its refusal."""
        token = find_token(headers, method)
        result = token if isinstance(token, Refusal) else await self._identify(token, address)
        if isinstance(result, Principal):
            return result
        if isinstance(token, str) and result.actor is None:
            result = replace(result, account=claimed_account(token))
        return self.charge(result, address)

    def charge(self, refusal: Refusal, address: Address | None) -> Refusal:
        """Count a failure and return its refusal, or the refusal of a source with too many failures.

        A token that proves its account counts against this account alone: other users' failures must not turn an
        expired token's 401 into a 429. Any other token counts against its address and the account that it names.
        """
        if refusal.status != 401:
            return refusal
        sources = self._sources(refusal, address)
        waits = [limit.wait_seconds(source) for limit, source in sources]
        for (limit, source), wait_seconds in zip(sources, waits, strict=True):
            if not wait_seconds:
                limit.record_failure(source)
        return limited(max(waits), refusal) if any(waits) else refusal

    def _sources(self, refusal: Refusal, address: Address | None) -> list[tuple[FailureLimit, Source]]:
        if refusal.actor is not None:
            return [(self.accounts, ("proven", refusal.tenant_id, refusal.actor.id))]
        claimed: list[tuple[FailureLimit, Source]] = []
        if refusal.account is not None:
            claimed = [(self.accounts, ("claimed", None, refusal.account))]
        return [(self.limit, address), *claimed]

    async def _identify(self, token: str, address: Address | None) -> Principal | Refusal:
        for stored in (self.devices, self.keys):
            if token.startswith(stored.prefix):
                return await self._find_owner(stored, token, address)
        if self.users is None:
            return _NO_ISSUER
        result = self.users.remembered(token) or await self.users.check(token)
        return await self._unless_revoked(result) if isinstance(result, Principal) else result

    async def _unless_revoked(self, user: Principal) -> Principal | Refusal:
        revocations = self.revocations
        if not (revocations.are_new or await revocations.are_known()):
            return _NO_REVOCATIONS
        if revocations.cover(user):
            return Refusal("revoked", "The token was revoked.", tenant_id=user.tenant_id, actor=user.actor)
        return user

    async def _find_owner(self, stored: StoredTokens, token: str, address: Address | None) -> Principal | Refusal:
        known = stored.remembered(token)
        if known is not None:
            return known
        fleet: Source = ("claimed", None, claimed_account(token))
        suspicious = self.limit.wait_seconds(address) or self.accounts.wait_seconds(fleet)
        try:
            return await stored.check(token, held_back=bool(suspicious))
        except (*UNAVAILABLE, asyncpg.PostgresError):
            return _NO_DATABASE


def limited(wait_seconds: int, refusal: Refusal) -> Refusal:
    """Return the refusal of a source with too many failures. Its cause is the reason of the given refusal."""
    return replace(
        refusal,
        reason="rate_limited",
        detail="Too many failed attempts.",
        retry_after_seconds=wait_seconds,
        cause=refusal.reason,
    )


def claimed_account(token: str) -> str | None:
    """Return the account that an unproven token names, or None.

    It is the subject of a JWT, the fleet of a device token or the API keys of a tenant. Every part may be hostile.
    """
    if token.startswith(DeviceTokens.prefix):
        device = DeviceTokens.form.fullmatch(token)
        return None if device is None else device_account(device[1])
    if token.startswith(ApiKeys.prefix):
        key = ApiKeys.form.fullmatch(token)
        return None if key is None else f"api-key:{key[1]}"
    if len(token) > _LONGEST_TOKEN_BYTES or token.count(".") != 2:
        return None
    payload = token.split(".")[1]
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) and 0 < len(subject) <= LONGEST_SUBJECT else None
