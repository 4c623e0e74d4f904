"""The public keys of an issuer that may verify user tokens."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jose import jwk

# By key type and, for elliptic curves, curve: (kty, crv). A symmetric algorithm must never be added: it would turn
# public keys into signing secrets.
ALGORITHMS: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
}
ALGORITHM_NAMES: Final = tuple(name for names in ALGORITHMS.values() for name in names)
SMALLEST_RSA_BITS = 2048
# Larger keys make every check slow. The largest in use have 4,096 bits.
LARGEST_RSA_BITS = 8192
MOST_KEYS = 100
_PUBLIC_MEMBERS = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}


class VerifyingKey(Protocol):
    """A public key prepared for one algorithm."""

    prepared_key: Any
    """Key object of the library cryptography."""

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Return whether the signature of the message is correct."""


class _PssKey:
    """An RSA key for PS256, which python-jose does not support."""

    _PADDING = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)

    def __init__(self, prepared_key: rsa.RSAPublicKey) -> None:
        self.prepared_key = prepared_key

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Return whether the signature of the message is correct."""
        try:
            self.prepared_key.verify(sig, msg, self._PADDING, hashes.SHA256())
        except InvalidSignature:
            return False
        return True


class KeySet:
    """The usable public keys of one JWKS document, prepared once because that halves the cost of a check."""

    def __init__(self, keys: Mapping[tuple[str | None, str], VerifyingKey]) -> None:
        self._keys = dict(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def from_document(cls, document: object) -> "KeySet":
        """Return the keys of a JWKS that may sign tokens, without the others. Raises ValueError if it is no JWKS."""
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
        """Return the key with this id and algorithm. Without an id, return the algorithm's key if it has only one."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        candidates = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return candidates[0] if len(candidates) == 1 else None


def _prepare(entry: dict[str, Any]) -> dict[str, VerifyingKey]:
    """Return the prepared keys of one JWK by algorithm. An unusable JWK has none."""
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
    # Public members only: a JWK that leaks its private key is used as a public key.
    public = {name: entry[name] for name in _PUBLIC_MEMBERS[kty] if name in entry}
    try:
        key = jwk.construct(public, algorithms[0])
        if kty == "RSA" and not SMALLEST_RSA_BITS <= key.prepared_key.key_size <= LARGEST_RSA_BITS:
            return {}
    except Exception:  # noqa: BLE001  # jose and cryptography raise many kinds of errors for malformed keys
        return {}
    return {name: _PssKey(key.prepared_key) if name == "PS256" else key for name in wanted}
