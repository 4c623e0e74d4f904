"""What a token whose signature is right must say before it is believed."""

import re
from dataclasses import dataclass
from typing import Any, Final

from services.shared.db import Actor
from services.ui_iot.refusals import Refusal

ROLES: Final = frozenset(("viewer", "operator", "admin", "auditor"))
LEEWAY_SECONDS = 60
LONGEST_SUBJECT = 255
LONGEST_NAME = 200

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says. expires_at: seconds since 1970."""

    tenant_id: str
    role: str
    actor: Actor
    expires_at: int


def read_claims(claims: dict[str, Any], *, issuer: str, audience: str, now: float) -> Claims | Refusal:
    """The claims in our terms, else why they are refused. now: seconds since 1970."""
    fault = _find_fault(claims, issuer=issuer, audience=audience, now=now)
    if fault is not None:
        return Refusal("invalid_claims", fault)
    name = claims.get("name")
    actor = Actor("user", claims["sub"], name[:LONGEST_NAME] if isinstance(name, str) and name else None)
    if claims["exp"] <= now:
        return Refusal("expired", "The token has expired.", tenant_id=claims["tenant_id"], actor=actor)
    return Claims(claims["tenant_id"], claims["role"], actor, claims["exp"])


def _find_fault(claims: dict[str, Any], *, issuer: str, audience: str, now: float) -> str | None:
    """What is wrong with the claims of a token whose signature is right; an expired one is not at fault."""
    aud, role = claims.get("aud"), claims.get("role")
    faults = (
        _find_time_fault(claims, now),
        None if claims.get("iss") == issuer else "The token comes from another issuer.",
        None
        if aud == audience or (isinstance(aud, list) and audience in aud)
        else "The token is meant for another audience.",
        None if _is_subject(claims.get("sub")) else f"sub must be text of 1 to {LONGEST_SUBJECT} characters.",
        None if _is_tenant(claims.get("tenant_id")) else "tenant_id is missing or not a tenant's name.",
        None if isinstance(role, str) and role in ROLES else f"role must be one of {', '.join(sorted(ROLES))}.",
    )
    return next(filter(None, faults), None)


def _find_time_fault(claims: dict[str, Any], now: float) -> str | None:
    exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    # bool is an int to isinstance, and a time as text or fraction was never meant.
    if type(exp) is not int or type(iat) is not int or type(nbf) is not int:
        return "exp and iat must be whole seconds."
    if iat > now + LEEWAY_SECONDS or nbf > now + LEEWAY_SECONDS or exp <= iat:
        return "The token is not valid yet, or ends before it begins."
    return None


def _is_subject(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_SUBJECT and value.isprintable()


def _is_tenant(value: object) -> bool:
    return isinstance(value, str) and _TENANT.fullmatch(value) is not None
