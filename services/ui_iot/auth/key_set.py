"""The public keys of an issuer, as far as they may verify user tokens."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jose import jwk

# Symmetric algorithms stay out for good: with one of them on the list, a public key is a signing secret.
# By key type, and of elliptic curves by the curve: (kty, crv).
ALGORITHMS: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
}
ALGORITHM_NAMES: Final = tuple(name for names in ALGORITHMS.values() for name in names)
SMALLEST_RSA_BITS = 2048
# A key of more bits makes every check slow; the largest in use have 4,096.
LARGEST_RSA_BITS = 8192
MOST_KEYS = 100
_PUBLIC_MEMBERS = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}


class VerifyingKey(Protocol):
    """A public key prepared for one algorithm."""

    prepared_key: Any
    """cryptography's key."""

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Return whether the signature over the message is right."""


class _PssKey:
    """An RSA key for PS256, which python-jose does not know."""

    _PADDING = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)

    def __init__(self, prepared_key: rsa.RSAPublicKey) -> None:
        self.prepared_key = prepared_key

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Return whether the signature over the message is right."""
        try:
            self.prepared_key.verify(sig, msg, self._PADDING, hashes.SHA256())
        except InvalidSignature:
            return False
        return True


class KeySet:
    """The usable public keys of one JWKS document, prepared once: a check with a prepared key costs half."""

    def __init__(self, keys: Mapping[tuple[str | None, str], VerifyingKey]) -> None:
        self._keys = dict(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def from_document(cls, document: object) -> "KeySet":
        """Return the keys of a JWKS that may sign tokens; others are left out. Raises ValueError when it is no JWKS."""
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError("not a JWKS document: it has no list of keys")  # noqa: TRY004  # the document's fault, not a programmer's
        keys: dict[tuple[str | None, str], VerifyingKey] = {}
        for entry in listed[:MOST_KEYS]:
            if isinstance(entry, dict):
                for algorithm, key in _prepare(entry).items():
                    keys.setdefault((entry.get("kid"), algorithm), key)
        return cls(keys)

    def find(self, kid: str | None, algorithm: str) -> VerifyingKey | None:
        """Return the key with this id for this algorithm; for a token without id, the only key of the algorithm."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        candidates = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return candidates[0] if len(candidates) == 1 else None


def _prepare(entry: dict[str, Any]) -> dict[str, VerifyingKey]:
    """Return the prepared key of one JWK by algorithm; nothing when it may not sign our tokens."""
    kty, curve = entry.get("kty"), entry.get("crv") if entry.get("kty") == "EC" else None
    if not isinstance(kty, str) or not isinstance(curve, str | None):
        return {}
    algorithms = ALGORITHMS.get((kty, curve), ())
    wanted = [name for name in algorithms if entry.get("alg", name) == name]
    operations = entry.get("key_ops", ["verify"])
    if (
        not wanted
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or not isinstance(entry.get("kid"), str | None)
    ):
        return {}
    # Only the public members: a JWKS that leaks its private key is still used as a public one.
    public = {name: entry[name] for name in _PUBLIC_MEMBERS[kty] if name in entry}
    try:
        key = jwk.construct(public, algorithms[0])
        if kty == "RSA" and not SMALLEST_RSA_BITS <= key.prepared_key.key_size <= LARGEST_RSA_BITS:
            return {}
    except Exception:  # noqa: BLE001  # jose and cryptography raise whatever a malformed key trips over
        return {}
    return {name: _PssKey(key.prepared_key) if name == "PS256" else key for name in wanted}
