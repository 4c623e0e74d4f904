"""API tokens of devices: pdt_<tenant>_<secret>, of which the database knows the SHA-256 only."""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from services.shared.db import Actor, Pool
from services.ui_iot.principal import Principal
from services.ui_iot.refusals import Refusal

PREFIX = "pdt_"
_TOKEN = re.compile(r"pdt_([a-z0-9][a-z0-9-]{0,62})_[A-Za-z0-9_-]{43}", re.ASCII)

_MALFORMED = Refusal("invalid_token", "The device token is malformed.")
_UNKNOWN = Refusal("invalid_token", "No device has this token.")


def new_device_token(tenant_id: str) -> tuple[str, bytes]:
    """A token of 256 random bits, to be shown once, and the hash to be stored."""
    token = f"{PREFIX}{tenant_id}_{secrets.token_urlsafe(32)}"
    return token, hash_token(token)


def hash_token(token: str) -> bytes:
    """SHA-256 of the whole token: its secret is random, so nothing slower is needed."""
    return hashlib.sha256(token.encode()).digest()


def claimed_tenant(token: str) -> str | None:
    """The tenant that a well-formed token names, whether or not it is one of its devices'."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else match[1]


class DeviceTokens:
    """Asks the database whose token it is, and remembers good answers for a few seconds."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        *,
        remember_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        most_remembered: int = 10_000,
    ) -> None:
        self._pool = pool
        self._remember_seconds = remember_seconds
        self._clock = clock
        self._most_remembered = most_remembered
        self._remembered: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def remembered(self, token: str) -> Principal | None:
        """Whose token it was when it was last asked for, if that was a moment ago."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        until, principal = self._remembered.get(digest, (0.0, None))
        if principal is None or until <= self._clock():
            self._remembered.pop(digest, None)
            return None
        return principal

    def forget(self, tenant_id: str, device_id: str) -> None:
        """Ask the database at the device's next request: its row was changed here."""
        stale = [
            digest
            for digest, (_, principal) in self._remembered.items()
            if principal.actor.id == device_id and principal.tenant_id == tenant_id
        ]
        for digest in stale:
            del self._remembered[digest]

    async def check(self, token: str) -> Principal | Refusal:
        """The device whose token it is. Raises what the pool raises when the database is away."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return _MALFORMED
        known = self.remembered(token)
        if known is not None:
            return known
        digest = hash_token(token)
        row = await self._pool().fetchrow(
            "select device_id, device_name, is_gateway, enabled from ingest.authenticate_device($1, $2)",
            match[1],
            digest,
        )
        if row is None:
            return _UNKNOWN
        actor = Actor("device", row["device_id"], row["device_name"])
        if not row["enabled"]:
            return Refusal("forbidden", "The device is disabled.", tenant_id=match[1], actor=actor)
        principal = Principal(match[1], "device", actor, is_gateway=row["is_gateway"])
        self._remembered[digest] = (self._clock() + self._remember_seconds, principal)
        if len(self._remembered) > self._most_remembered:
            self._remembered.popitem(last=False)
        return principal
