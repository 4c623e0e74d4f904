"""Checks of user tokens. key_set, which verifies their signatures, is the only code that uses python-jose.

python-jose's own checks are too lenient. This module adds a closed list of algorithms that fit the key, required claims
of the right type, an issue time that is not in the future, no header extensions and a size limit. An invalid token is
returned as a Refusal; nothing is raised.
"""

import base64
import re
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import orjson
from cachetools import LRUCache

from services.ui_iot.auth.claims import Claims, read_claims
from services.ui_iot.auth.key_set import ALGORITHM_NAMES, KeySet
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.trust import Trust

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
# RFC 7515 and 7797: each changes the signed bytes or the meaning of the token.
_REFUSED_HEADERS = ("crit", "zip", "enc", "b64")

WRONG_SIGNATURE = Refusal("invalid_token", "The token's signature is wrong.")
MALFORMED = Refusal("invalid_token", "The token is malformed.")


def too_large(most_bytes: int) -> Refusal:
    """Return the refusal of a token above the size limit."""
    return Refusal("token_too_large", f"The token is too large: it may have {most_bytes} bytes.")


class TokenVerifier:
    """Checks user tokens of one issuer and caches valid ones until they expire or the keys change."""

    def __init__(
        self, trust: Trust, *, clock: Callable[[], float] = time.time, remembered_tokens: int = 10_000
    ) -> None:
        self._trust = trust
        self._clock = clock
        self._verified: LRUCache[bytes, Claims] = LRUCache(remembered_tokens)
        self._keys: KeySet | None = None

    def remembered(self, token: str, keys: KeySet) -> Principal | None:
        """Return the user of a valid token that was verified with these keys before, or None."""
        if keys is not self._keys:
            self._verified.clear()
            self._keys = keys
            return None
        if len(token) > self._trust.max_token_bytes or not token.isascii():
            return None
        digest = sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            return None
        if claims.expires_at <= self._clock():
            del self._verified[digest]
            return None
        return claims.user

    def verify(self, token: str, keys: KeySet) -> Principal | Refusal:
        """Return the user of a valid token, or its refusal.

        After unknown_key and WRONG_SIGNATURE, the token may be valid under newer keys.
        """
        remembered = self.remembered(token, keys)
        if remembered is not None:
            return remembered
        try:
            result = self._check(token, keys)
        except Exception:  # noqa: BLE001  # a token that makes jose or this module fail is not valid
            return MALFORMED
        if isinstance(result, Refusal):
            return result
        self._verified[sha256(token.encode()).digest()] = result
        return result.user

    def _check(self, token: str, keys: KeySet) -> Claims | Refusal:
        if len(token) > self._trust.max_token_bytes:
            return too_large(self._trust.max_token_bytes)
        match = _TOKEN.fullmatch(token)
        if match is None:
            return MALFORMED
        header = _decode_object(match[1])
        fault = _find_header_fault(header, strict_type=self._trust.strict_type)
        if fault is not None:
            return Refusal("invalid_token", fault)
        key = keys.find(header.get("kid"), header["alg"])
        if key is None:
            return Refusal("unknown_key", "The token is signed with a key that the issuer does not publish.")
        if key.verify(token[: match.end(2)].encode(), _decode(match[3])) is not True:
            return WRONG_SIGNATURE
        return read_claims(_decode_object(match[2]), trust=self._trust, now=self._clock())


def claimed_issuer(token: str) -> str | None:
    """Return the unproven issuer that a token names, or None. The caller bounds the size."""
    match = _TOKEN.fullmatch(token)
    try:
        issuer = _decode_object(match[2]).get("iss") if match is not None else None
    except ValueError:
        return None
    return issuer if isinstance(issuer, str) else None


def _find_header_fault(header: dict[str, Any], *, strict_type: bool) -> str | None:
    kind = _type_of(header)
    if any(name in header for name in _REFUSED_HEADERS) or kind not in ("JWT", "AT+JWT"):
        return "The token uses header parameters that are not supported."
    if strict_type and kind != "AT+JWT":
        return "The token is not of type at+jwt, which is required here."
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHM_NAMES:
        return f"The token must be signed with one of {', '.join(ALGORITHM_NAMES)}."
    return None if isinstance(header.get("kid"), str | None) else "The token's key id must be text."


def _type_of(header: dict[str, Any]) -> str:
    kind = header.get("typ", "JWT")
    return kind.upper().removeprefix("APPLICATION/") if isinstance(kind, str) else ""


def _decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _decode_object(segment: str) -> dict[str, Any]:
    value = orjson.loads(_decode(segment))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # the token's fault, not a programmer's
    return value
