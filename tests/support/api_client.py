"""The HTTP API for tests: an issuer of tokens, and the whole application over a clone of the database."""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from jose import jwk, jws
from starlette.types import ASGIApp

from services.shared.audit import open_audit_logger
from services.shared.db import close_pool, open_pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import UiSettings
from services.ui_iot.__main__ import make_backend
from services.ui_iot.app import create_app
from services.ui_iot.auth.jwks import Jwks
from services.ui_iot.auth.oidc import Issuer
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.trust import Trust
from services.ui_iot.auth.user_tokens import UserTokens
from services.ui_iot.backend import Backend

ISSUER = "https://issuer.test"


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@dataclass
class SigningKey:
    """A private key with the id and algorithm it is published under."""

    kid: str
    algorithm: str
    pem: str

    def public(self) -> dict[str, Any]:
        """Return the JWK an issuer publishes."""
        # python-jose knows no PS256; the JWK differs by the name only.
        known = "RS256" if self.algorithm == "PS256" else self.algorithm
        public = jwk.construct(self.pem, known).public_key().to_dict()
        return {**public, "alg": self.algorithm, "kid": self.kid, "use": "sig"}


def ec_key(kid: str = "ec-1") -> SigningKey:
    """Return a key for ES256."""
    return SigningKey(kid, "ES256", _pem(ec.generate_private_key(ec.SECP256R1())))


def rsa_key(kid: str = "rsa-1", *, bits: int = 2048) -> SigningKey:
    """Return a key for RS256."""
    return SigningKey(kid, "RS256", _pem(rsa.generate_private_key(public_exponent=65537, key_size=bits)))


def es384_key(kid: str = "ec-384") -> SigningKey:
    """Return a key for ES384."""
    return SigningKey(kid, "ES384", _pem(ec.generate_private_key(ec.SECP384R1())))


def ps256_key(kid: str = "ps-1") -> SigningKey:
    """Return a key for PS256."""
    return replace(rsa_key(kid), algorithm="PS256")


EC = ec_key()
RSA = rsa_key()


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token with these changes; a change to None leaves the claim out."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": "pulse",
        "sub": "alice",
        "name": "Alice",
        "tenant_id": "acme",
        "role": "admin",
        "iat": now,
        "exp": now + 600,
        **changes,
    }
    return {name: value for name, value in good.items() if value is not None}


def sign(payload: dict[str, Any] | bytes, *, key: SigningKey = EC, headers: dict[str, Any] | None = None) -> str:
    """Return a token with any payload, signed by the key."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    if key.algorithm == "PS256":
        return _sign_pss(body, key, {"alg": "PS256", "typ": "JWT", "kid": key.kid, **(headers or {})})
    return str(jws.sign(body, key.pem, headers={"kid": key.kid, **(headers or {})}, algorithm=key.algorithm))


def _sign_pss(body: bytes, key: SigningKey, headers: dict[str, Any]) -> str:
    private = serialization.load_pem_private_key(key.pem.encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    signed = ".".join(_encode(part) for part in (json.dumps(headers).encode(), body))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
    return f"{signed}.{_encode(private.sign(signed.encode(), pss, hashes.SHA256()))}"


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(**changes: Any) -> str:
    """Return a good token with these claims changed."""
    return sign(claims(**changes))


@dataclass
class KeyServer:
    """A key source that counts its requests; error makes them fail."""

    document: Any = field(default_factory=lambda: {"keys": [RSA.public(), EC.public()]})
    error: Exception | None = None
    asked: int = 0
    note: str | None = None

    async def fetch_keys(self) -> object:
        """Return the document."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.document


@dataclass
class Api:
    """The running application and its client."""

    client: httpx.AsyncClient
    backend: Backend
    keys: KeyServer
    app: ASGIApp

    @property
    def process(self) -> Process:
        """The process object that the application uses."""
        return self.backend.process

    async def call(self, method: str, path: str, *, role: str = "admin", tenant: str = "acme", **rest: Any) -> Any:
        """Return the response to a request by a user with the role."""
        headers = {"Authorization": f"Bearer {token(role=role, tenant_id=tenant, sub=f'{role}@{tenant}')}"}
        return await self.client.request(method, path, headers={**headers, **rest.pop("headers", {})}, **rest)

    async def make(self, path: str, body: dict[str, Any], **rest: Any) -> dict[str, Any]:
        """Create something as admin and return the API's answer."""
        response = await self.call("POST", path, json=body, **rest)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made


@asynccontextmanager
async def open_api(
    app_url: str,
    *,
    issuer: Issuer | None = None,
    issuers: Mapping[str, Issuer] | None = None,
    with_users: bool = True,
    **settings: Any,
) -> AsyncIterator[Api]:
    """Yield the application over the database, including its audit trail. issuer: the only one; issuers: several."""
    # One connection at start: a test needs few, and each test opens its own pool.
    values = UiSettings(
        **{
            "database_url": app_url,
            "auth_rate_limit_per_minute": 0,
            "pool_max_size": 4,
            "allowed_hosts": ("api.test",),
            **settings,
        }
    )
    process = Process(settings=values, metrics=ProcessMetrics("ui_iot"))
    keys = KeyServer()
    jwks = Jwks(keys)
    await jwks.newer()
    users = UserTokens(jwks, TokenVerifier(Trust(ISSUER))) if with_users else None
    process.pool = await open_pool(values)
    try:
        async with open_audit_logger(values, registry=process.metrics.registry) as audit:
            process.ready = True
            backend = make_backend(
                process, values, audit=audit, users=users, issuers=issuers or ({ISSUER: issuer} if issuer else {})
            )
            app = create_app(backend)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("203.0.113.9", 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
                yield Api(client, backend, keys, app)
            await backend.refusals.stop()
    finally:
        await close_pool(process.pool)
