"""Checks of the claims of a token whose signature is correct. Every value may be hostile."""

from typing import Any, Final, NamedTuple, TypeGuard

from services.shared.db import Actor
from services.shared.tenant_id import SYSTEM_TENANT, is_tenant_id
from services.ui_iot.auth.principal import Grant, Principal, token_mark
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.trust import ABSENT, ClaimPath, Trust

ROLES: Final = ("admin", "operator", "auditor", "viewer")
"""Roles from the highest to the lowest. If a token has several, the first one in this order counts."""
LEEWAY_SECONDS = 60
LATEST_SECONDS = 2**53
"""Largest integer that a JSON number holds exactly."""
LONGEST_SUBJECT = 255
LONGEST_NAME = 200
# Claims in which providers name the client that a token was issued to: RFC 9068, OpenID Connect, Entra ID 1.0, Okta.
CLIENT_CLAIMS: Final = ("client_id", "azp", "appid", "cid")

SESSION_CLAIMS: Final = ("sid", "session_state")

# Claims of ID tokens (OpenID Connect Core, sections 2 and 3.3.2.11) and of security events such as logout tokens.
_FOREIGN_CLAIMS: Final = ("at_hash", "c_hash", "events")
_NOT_ACCESS = "This is not an access token: send the access token, not the ID token."
_SCOPES = frozenset(("scope", "scp"))


class ClaimFault(Exception):
    """A claim is not accepted. The message is one sentence for the caller, without values of the token."""


class Claims(NamedTuple):
    """The user in the claims of a valid token. expires_at: seconds since 1970."""

    user: Principal
    expires_at: float


def read_claims(claims: dict[str, Any], *, trust: Trust, now: float) -> Claims | Refusal:
    """Return the claims in Pulse's terms, or their refusal. now: seconds since 1970."""
    fault = (
        _find_time_fault(claims, now, trust.max_token_seconds)
        or _find_kind_fault(claims)
        or _find_origin_fault(claims, trust)
    )
    if fault is not None:
        return Refusal("invalid_claims", fault)
    try:
        actor = Actor("user", _read_subject(claims), _read_name(claims))
        tenant_id = _read_tenant(claims, trust)
        role = _read_role(claims, trust)
    except ClaimFault as reason:
        return Refusal("invalid_claims", str(reason))
    if claims["exp"] <= now:
        return Refusal("expired", "The token has expired.", tenant_id=tenant_id, actor=actor)
    return Claims(Principal(tenant_id, role, actor, grant=_read_grant(claims)), claims["exp"])


def _find_time_fault(claims: dict[str, Any], now: float, most_seconds: float) -> str | None:
    exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    if not (_is_time(exp) and _is_time(iat) and _is_time(nbf)):
        return "exp and iat, and nbf if it is there, must be numbers of seconds since 1970."
    if iat > now + LEEWAY_SECONDS or nbf > now + LEEWAY_SECONDS or exp <= iat:
        return "The token is not valid yet, or ends before it begins."
    # iat may be up to LEEWAY_SECONDS ahead of this clock. This bounds the remaining time as well.
    if exp - iat > most_seconds:
        return f"The token is valid for more than {most_seconds:g} seconds."
    return None


def _is_time(value: object) -> TypeGuard[float]:
    """Return whether the value is a NumericDate (RFC 7519), which may have a fraction. A bool is no number here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LATEST_SECONDS


def _find_origin_fault(claims: dict[str, Any], trust: Trust) -> str | None:
    """Return the fault of issuer, audience or client, or None."""
    if claims.get("iss") != trust.issuer:
        return "The token comes from another issuer."
    aud = claims.get("aud")
    if aud is None and not trust.client_ids:
        return "The token names no audience."
    if aud is not None and not any(_is_audience(each, trust) for each in (aud if isinstance(aud, list) else [aud])):
        return "The token is meant for another audience."
    if trust.client_ids:
        clients = [claims[name] for name in CLIENT_CLAIMS if name in claims]
        if not clients or not all(isinstance(each, str) and each in trust.client_ids for each in clients):
            return "The token was issued to another client."
    return None


def _is_audience(value: object, trust: Trust) -> bool:
    return isinstance(value, str) and value in trust.audiences


def _read_subject(claims: dict[str, Any]) -> str:
    sub = claims.get("sub")
    if not isinstance(sub, str) or not 0 < len(sub) <= LONGEST_SUBJECT or not sub.isprintable():
        raise ClaimFault(f"sub must be text of 1 to {LONGEST_SUBJECT} printable characters.")
    return sub


def _read_name(claims: dict[str, Any]) -> str | None:
    """Return the display name. An unusable name is dropped, because no decision depends on it."""
    name = claims.get("name")
    return name[:LONGEST_NAME] if isinstance(name, str) and name and name.isprintable() else None


def _read_grant(claims: dict[str, Any]) -> Grant:
    """Return the members that a revocation can name besides the subject. The session is in sid or session_state."""
    marks = (token_mark(claims.get(name)) for name in SESSION_CLAIMS)
    sessions = tuple(dict.fromkeys(mark for mark in marks if mark is not None))
    return Grant(claims["iat"], token_mark(claims.get("jti")), sessions)


def _read_tenant(claims: dict[str, Any], trust: Trust) -> str:
    values = _read_values(claims, trust.tenant_claim)
    if trust.tenants is not None:
        values = [trust.tenants[value] for value in values if value in trust.tenants]
        if not values:
            raise ClaimFault(f"The issuer may not speak for the tenant in {trust.tenant_claim}.")
    if len(set(values)) != 1:
        raise ClaimFault(f"{trust.tenant_claim} must name exactly one tenant.")
    if not is_tenant_id(values[0]):
        raise ClaimFault(f"{trust.tenant_claim} is not the name of a tenant.")
    if values[0] == SYSTEM_TENANT and trust.tenants is None:
        raise ClaimFault(f"{trust.tenant_claim} names Pulse's own tenant, which the issuer's tenants do not list.")
    return values[0]


def _read_role(claims: dict[str, Any], trust: Trust) -> str:
    values = _read_values(claims, trust.role_claim)
    # With a map, a provider's role that happens to be called admin is not Pulse's admin.
    roles = set(values) if trust.role_map is None else {trust.role_map.get(value) for value in values}
    highest = next((role for role in ROLES if role in roles), None)
    if highest is None:
        known = "one of the mapped roles" if trust.role_map is not None else f"one of {', '.join(sorted(ROLES))}"
        raise ClaimFault(f"{trust.role_claim} must have {known}.")
    return highest


def _read_values(claims: dict[str, Any], path: ClaimPath) -> list[str]:
    """Return the texts at a place, which holds one text or a list. Scopes are separated by spaces (RFC 6749)."""
    value = path.find(claims)
    if value is ABSENT:
        raise ClaimFault(f"The token has no claim {path}.")
    if isinstance(value, str):
        return value.split() if path.names[-1] in _SCOPES else [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ClaimFault(f"{path} must be text or a list of texts.")
    return value


def _find_kind_fault(claims: dict[str, Any]) -> str | None:
    """Return the fault of claims that are not an access token's, or None.

    An issuer signs other tokens with the same key. Keycloak names the kind in the claim typ, Cognito in token_use.
    Keycloak before version 25 puts nonce into access tokens, and its typ separates them from ID tokens.
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
