"""Separates access tokens from the other tokens that an issuer signs with the same key."""

from typing import Any, Final

# Claims of ID tokens (OpenID Connect Core, sections 2 and 3.3.2.11) and of security events such as logout tokens.
_FOREIGN_CLAIMS: Final = ("at_hash", "c_hash", "events")
_NOT_ACCESS = "This is not an access token: send the access token, not the ID token."


def find_kind_fault(claims: dict[str, Any]) -> str | None:
    """Return why the claims are not those of an access token, or None.

    Keycloak names the kind in the claim typ, Cognito in token_use. Keycloak before version 25 puts nonce into access
    tokens as well; its typ separates them from ID tokens.
    """
    kind, use = claims.get("typ"), claims.get("token_use")
    if kind is not None and (not isinstance(kind, str) or kind.upper() not in ("BEARER", "JWT", "AT+JWT")):
        return _NOT_ACCESS
    if use is not None and use != "access":
        return _NOT_ACCESS
    if any(name in claims for name in _FOREIGN_CLAIMS):
        return _NOT_ACCESS
    if "nonce" in claims and not (isinstance(kind, str) and kind.upper() == "BEARER"):
        return _NOT_ACCESS
    return None
