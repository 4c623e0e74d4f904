"""Idempotency-Key: a repeated POST gets the first answer and has no second effect.

The header is that of draft-ietf-httpapi-idempotency-key-header. The transaction of the effect writes a row for the key.
So of two concurrent requests, the second waits for the first in any process, and a failed request leaves no row: its
key can be used again.

A secret that an answer shows only once (a device's token, a webhook's secret) is encrypted with the key itself. The
database has only a slow hash of the key: a replay can show the secret again, but the row alone cannot.
"""

import asyncio
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.requests import Request

from services.shared.db import Connection
from services.ui_iot.auth.principal import Principal
from services.ui_iot.http.problems import BadRequest

HEADER = "Idempotency-Key"
_KEY = re.compile(r'"([\x20\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')
_NONCE_BYTES = 12
# 4 MiB and some 10 ms for each guess of a key that is not random.
_SCRYPT_COST = 4096


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The key of one request. digest: covers tenant, principal and path. fingerprint: covers the request's body."""

    digest: bytes
    fingerprint: bytes
    _cipher: AESGCM

    @classmethod
    async def read(cls, request: Request, caller: Principal) -> Self | None:
        """Return the request's key, or None if it has none. Raises BadRequest if the key is malformed."""
        lines = request.headers.getlist(HEADER)
        if not lines:
            return None
        key = _KEY.fullmatch(lines[0]) if len(lines) == 1 else None
        if key is None:
            raise BadRequest(f"{HEADER} must be 1 to 255 printable ASCII characters, quoted or not; a UUID does.")
        scope = orjson.dumps(
            [caller.tenant_id, caller.actor.type, caller.actor.id, request.method, request.scope["path"]]
        )
        body = _canonical(await request.body())
        return await asyncio.to_thread(cls._derive, (key[1] or key[2]).encode(), scope, body)

    @classmethod
    def _derive(cls, key: bytes, scope: bytes, body: bytes) -> Self:
        salt = hashlib.sha256(scope).digest()
        derived = hashlib.scrypt(key, salt=salt, n=_SCRYPT_COST, r=8, p=1, dklen=64)
        digest, secret = derived[:32], derived[32:]
        return cls(digest, hmac.digest(secret, body, "sha256"), AESGCM(secret))

    async def claim(self, connection: Connection) -> dict[str, Any] | None:
        """Return the earlier answer, or claim the key for this transaction and return None.

        Waits for a transaction with the same key. Raises PostgresError PU422 if the key was used with another body.
        """
        kept = await connection.fetchrow(
            "select answer, secrets from ingest.claim_idempotency_key($1, $2)", self.digest, self.fingerprint
        )
        return None if kept is None else {**kept["answer"], **self._open(kept["secrets"])}

    async def keep(self, connection: Connection, answer: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
        """Store the answer for 24 hours."""
        await connection.execute(
            "select ingest.keep_answer($1, $2, $3)", self.digest, dict(answer), self._seal(secrets)
        )

    def _seal(self, secrets: Mapping[str, Any]) -> bytes | None:
        if not secrets:
            return None
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, orjson.dumps(dict(secrets)), self.digest)

    def _open(self, sealed: bytes | None) -> dict[str, Any]:
        if sealed is None:
            return {}
        text = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self.digest)
        secrets: dict[str, Any] = orjson.loads(text)
        return secrets


def _canonical(body: bytes) -> bytes:
    """Return the body in a canonical form, in which order of members and white space do not matter."""
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except ValueError:
        return body
