"""Key that signs user tokens of the local stack, which has no identity provider. It is created on first use."""

import base64
import hashlib
import os
import time
from pathlib import Path
from typing import Literal

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk, jwt

from services.cli.home import Home
from services.shared.write_once import replace, write_once

ISSUER = "pulse-local"
AUDIENCE = "pulse"
ALGORITHM = "ES256"
LIFETIME_SECONDS = 12 * 3600

_OWN_KEYS_UNLESS = ("PULSE_OIDC_ISSUER", "PULSE_JWKS_URL", "PULSE_JWKS_FILE")
"""Settings that name an identity provider, which signs the tokens instead."""

Role = Literal["viewer", "operator", "admin", "auditor"]


class SigningKey:
    """ES256 key in a directory of secrets, with a JWKS file beside it for the services."""

    def __init__(self, directory: Path) -> None:
        self.jwks_file = directory / "jwks.json"
        self._pem = write_once(directory / "es256.pem", _new_key())
        self._public = _public_jwk(self._pem)
        document = orjson.dumps({"keys": [self._public]})
        if not self.jwks_file.exists() or self.jwks_file.read_bytes() != document:
            replace(self.jwks_file, document)

    def token(self, *, tenant_id: str, role: Role, name: str = "Local user", expired: bool = False) -> str:
        """Return a bearer token that is valid for twelve hours, or one that expired an hour ago."""
        now = int(time.time()) - (LIFETIME_SECONDS + 3600 if expired else 0)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": f"local-{role}",
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "tenant_id": tenant_id,
            "role": role,
            "name": name,
        }
        return str(jwt.encode(claims, self._pem, ALGORITHM, headers={"kid": self._public["kid"]}))


def uses_own_keys() -> bool:
    """Return whether user tokens are signed by the local stack, because no identity provider is configured."""
    return not any(os.environ.get(name) for name in _OWN_KEYS_UNLESS)


def signs_tokens(home: Home) -> bool:
    """Return whether the services accept this key: by default, or because PULSE_JWKS_FILE names its file."""
    named = os.environ.get("PULSE_JWKS_FILE")
    return uses_own_keys() or (named is not None and Path(named).resolve() == home.keys / "jwks.json")


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_jwk(pem: bytes) -> dict[str, str]:
    """Return the public half as RFC 7517 writes it, named by its RFC 7638 thumbprint."""
    key = jwk.construct(pem, ALGORITHM).public_key().to_dict()
    required = {name: key[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(orjson.dumps(required, option=orjson.OPT_SORT_KEYS)).digest()
    thumbprint = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {**required, "alg": ALGORITHM, "use": "sig", "kid": thumbprint}
