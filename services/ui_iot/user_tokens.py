"""User tokens: the issuer's keys and the checks of a token, put together."""

from services.ui_iot.claims import Claims
from services.ui_iot.jwks import Jwks
from services.ui_iot.principal import Principal
from services.ui_iot.refusals import Refusal
from services.ui_iot.tokens import TokenVerifier

_NO_KEYS = Refusal("auth_unavailable", "The keys of the token issuer are not known yet.", retry_after_seconds=2)
_KEYS_OLD = Refusal("auth_unavailable", "The token issuer cannot be asked for newer keys.", retry_after_seconds=5)


class UserTokens:
    """Finds out whose token it is, asking the issuer for newer keys when the token names an unknown one."""

    def __init__(self, jwks: Jwks, verifier: TokenVerifier) -> None:
        self._jwks = jwks
        self._verifier = verifier

    def remembered(self, token: str) -> Principal | None:
        """Whose token it is, if it was verified before and is still good."""
        keys = self._jwks.current()
        claims = self._verifier.remembered(token, keys) if keys is not None else None
        return _principal(claims) if claims is not None else None

    async def check(self, token: str) -> Principal | Refusal:
        """The user whose token it is."""
        keys = self._jwks.current() or await self._jwks.newer()
        if keys is None:
            return _NO_KEYS
        result = self._verifier.verify(token, keys)
        if isinstance(result, Refusal) and result.reason == "unknown_key":
            newer = await self._jwks.newer()
            if newer is not None and newer is not keys:
                result = self._verifier.verify(token, newer)
            elif self._jwks.failing:
                return _KEYS_OLD
        return result if isinstance(result, Refusal) else _principal(result)


def _principal(claims: Claims) -> Principal:
    return Principal(claims.tenant_id, claims.role, claims.actor)
