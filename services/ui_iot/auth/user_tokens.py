"""Checks of user tokens with the current keys of their issuer."""

from collections.abc import Mapping
from typing import Protocol

from services.ui_iot.auth.jwks import Jwks
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.tokens import MALFORMED, WRONG_SIGNATURE, TokenVerifier, claimed_issuer, too_large

_NO_KEYS = Refusal("auth_unavailable", "The keys of the token issuer are not known yet.", retry_after_seconds=2)
_KEYS_OLD = Refusal("auth_unavailable", "The token issuer cannot be asked for newer keys.", retry_after_seconds=5)
_FOREIGN = Refusal("invalid_claims", "The token comes from an issuer that is not configured.")


class TokenCheck(Protocol):
    """Checks user tokens of one issuer or of several."""

    def remembered(self, token: str) -> Principal | None:
        """Return the user of a valid token that was verified before, or None."""

    async def check(self, token: str) -> Principal | Refusal:
        """Return the user of the token, or its refusal."""


class UserTokens:
    """Finds the user of a token of one issuer, and fetches newer keys if those in memory do not fit."""

    def __init__(self, jwks: Jwks, verifier: TokenVerifier) -> None:
        self._jwks = jwks
        self._verifier = verifier

    def remembered(self, token: str) -> Principal | None:
        """Return the user of a valid token that was verified before, or None."""
        keys = self._jwks.current()
        return self._verifier.remembered(token, keys) if keys is not None else None

    async def check(self, token: str) -> Principal | Refusal:
        """Return the user of the token, or its refusal.

        A provider that restarts may publish a new key under an old id. So a wrong signature leads to a fetch of newer
        keys as an unknown id does. Jwks limits the number of fetches.
        """
        keys = self._jwks.current() or await self._jwks.newer()
        if keys is None:
            return _NO_KEYS
        result = self._verifier.verify(token, keys)
        if isinstance(result, Refusal) and (result is WRONG_SIGNATURE or result.reason == "unknown_key"):
            newer = await self._jwks.newer()
            if newer is not None and newer is not keys:
                result = self._verifier.verify(token, newer)
            elif self._jwks.failing:
                return _KEYS_OLD
        return result


class TokensByIssuer:
    """Checks user tokens of several issuers, with the keys and conditions of the issuer that the token names."""

    def __init__(self, issuers: Mapping[str, UserTokens], *, max_token_bytes: int) -> None:
        self._issuers = issuers
        self._max_token_bytes = max_token_bytes

    def remembered(self, token: str) -> Principal | None:
        """Return the user of a valid token that was verified before, or None."""
        if len(token) > self._max_token_bytes:
            return None
        users = self._issuers.get(claimed_issuer(token) or "")
        return users.remembered(token) if users is not None else None

    async def check(self, token: str) -> Principal | Refusal:
        """Return the user of the token, or its refusal."""
        if len(token) > self._max_token_bytes:
            return too_large(self._max_token_bytes)
        issuer = claimed_issuer(token)
        if issuer is None:
            return MALFORMED
        users = self._issuers.get(issuer)
        return await users.check(token) if users is not None else _FOREIGN
