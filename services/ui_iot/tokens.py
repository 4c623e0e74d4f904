"""The one module that touches python-jose, whose own checks are too lenient to be let near a request.

What it does not do by itself and is done here: a closed list of algorithms that fit the key, required claims of the
right type, an issue time that is not in the future, minimal key sizes, no header extensions, a bound on the size.
Whatever is not a valid token comes back as a Refusal; nothing is raised.
"""

import base64
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

import orjson
from jose import jwk
from jose.backends.base import Key

from services.ui_iot.claims import Claims, read_claims
from services.ui_iot.refusals import Refusal

# Symmetric algorithms stay out for good: with one of them on the list, a public key is a signing secret.
ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256"}
LONGEST_TOKEN_BYTES = 8192
SMALLEST_RSA_BITS = 2048
MOST_KEYS = 100

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
# RFC 7515 and 7797: each changes what the signature covers or what the token means.
_REFUSED_HEADERS = ("crit", "zip", "enc", "b64")
_PUBLIC_MEMBERS = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}


class KeySet:
    """The usable public keys of one JWKS document, prepared once: a check with a prepared key costs half."""

    def __init__(self, keys: Mapping[tuple[str | None, str], Key]) -> None:
        self._keys = dict(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def from_document(cls, document: object) -> "KeySet":
        """The keys of a JWKS that may sign tokens; others are left out. Raises ValueError when it is no JWKS."""
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError("not a JWKS document: it has no list of keys")  # noqa: TRY004  # the document's fault, not a programmer's
        keys: dict[tuple[str | None, str], Key] = {}
        for entry in listed[:MOST_KEYS]:
            prepared = _prepare(entry) if isinstance(entry, dict) else None
            if prepared is not None:
                keys.setdefault((entry.get("kid"), prepared[0]), prepared[1])
        return cls(keys)

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key with this id for this algorithm; for a token without id, the only key of the algorithm."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        candidates = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return candidates[0] if len(candidates) == 1 else None


def _prepare(entry: dict[str, Any]) -> tuple[str, Key] | None:
    """The algorithm and prepared key of one JWK, None when it may not sign our tokens."""
    kty = entry.get("kty")
    algorithm = ALGORITHMS.get(kty) if isinstance(kty, str) else None
    operations = entry.get("key_ops", ["verify"])
    if (
        algorithm is None
        or entry.get("alg", algorithm) != algorithm
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or not isinstance(entry.get("kid"), str | None)
        or (kty == "EC" and entry.get("crv") != "P-256")
    ):
        return None
    # Only the public members: a JWKS that leaks its private key is still used as a public one.
    public = {name: entry[name] for name in _PUBLIC_MEMBERS[str(kty)] if name in entry}
    try:
        key = jwk.construct(public, algorithm)
    except Exception:  # noqa: BLE001  # jose and cryptography raise whatever a malformed key trips over
        return None
    if kty == "RSA" and key.prepared_key.key_size < SMALLEST_RSA_BITS:
        return None
    return algorithm, key


class TokenVerifier:
    """Checks user tokens of one issuer and remembers the valid ones until they expire or the keys change."""

    def __init__(
        self, *, issuer: str, audience: str, clock: Callable[[], float] = time.time, remembered_tokens: int = 10_000
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._remembered_tokens = remembered_tokens
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()
        self._keys: KeySet | None = None

    def remembered(self, token: str, keys: KeySet) -> Claims | None:
        """The claims of a token that was verified with these keys before and is still valid."""
        if keys is not self._keys:
            self._verified.clear()
            self._keys = keys
            return None
        if len(token) > LONGEST_TOKEN_BYTES or not token.isascii():
            return None
        digest = sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            return None
        if claims.expires_at <= self._clock():
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return claims

    def verify(self, token: str, keys: KeySet) -> Claims | Refusal:
        """The claims of a valid token, else why it is none; unknown_key asks for a look at newer keys."""
        remembered = self.remembered(token, keys)
        if remembered is not None:
            return remembered
        try:
            result = self._check(token, keys)
        except Exception:  # noqa: BLE001  # whatever a hostile token breaks in jose or here, it is not a valid token
            return Refusal("invalid_token", "The token is malformed.")
        if isinstance(result, Claims):
            self._verified[sha256(token.encode()).digest()] = result
            if len(self._verified) > self._remembered_tokens:
                self._verified.popitem(last=False)
        return result

    def _check(self, token: str, keys: KeySet) -> Claims | Refusal:
        match = _TOKEN.fullmatch(token) if len(token) <= LONGEST_TOKEN_BYTES else None
        if match is None:
            return Refusal("invalid_token", "The token is malformed.")
        header = _decode_object(match[1])
        if any(name in header for name in _REFUSED_HEADERS) or _type_of(header) not in ("JWT", "AT+JWT"):
            return Refusal("invalid_token", "The token uses header parameters that are not supported.")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS.values() or not isinstance(kid, str | None):
            return Refusal("invalid_token", "The token is not signed with RS256 or ES256.")
        key = keys.find(kid, algorithm)
        if key is None:
            return Refusal("unknown_key", "The token is signed with a key that the issuer does not publish.")
        if key.verify(token[: match.end(2)].encode(), _decode(match[3])) is not True:
            return Refusal("invalid_token", "The token's signature is wrong.")
        return read_claims(_decode_object(match[2]), issuer=self._issuer, audience=self._audience, now=self._clock())


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
