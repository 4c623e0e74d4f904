"""API tokens of devices: pdt_<tenant>_<secret>, of which the database knows the SHA-256 only."""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from services.shared.db import Actor, Pool
from services.ui_iot.device_lookup import DeviceLookup
from services.ui_iot.principal import Principal
from services.ui_iot.refusals import Refusal

PREFIX = "pdt_"
_TOKEN = re.compile(r"pdt_([a-z0-9][a-z0-9-]{0,62})_[A-Za-z0-9_-]{43}", re.ASCII)

V = TypeVar("V", Principal, Refusal)
Memory: TypeAlias = OrderedDict[bytes, tuple[float, V]]
"""Verdicts by the digest of the token, each with the monotonic time until which it holds."""

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
    """Finds the device of a token, and remembers the answers for a few seconds."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        *,
        remember_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        most_remembered: int = 10_000,
    ) -> None:
        self._lookup = DeviceLookup(pool)
        self._remember_seconds = remember_seconds
        self._clock = clock
        self._most_remembered = most_remembered
        # Two memories: a flood of unknown tokens must not push the good ones out.
        self._accepted: Memory[Principal] = OrderedDict()
        self._refused: Memory[Refusal] = OrderedDict()

    def remembered(self, token: str) -> Principal | None:
        """Return the device that the token belonged to a few seconds ago, or None."""
        return self._recall(self._accepted, _digest_of_any(token))

    def forget(self, tenant_id: str, device_id: str) -> None:
        """Ask the database again at the device's next request, because its row was changed here."""
        for memory in (self._accepted, self._refused):
            stale = [
                digest
                for digest, (_, verdict) in memory.items()
                if verdict.tenant_id == tenant_id and verdict.actor is not None and verdict.actor.id == device_id
            ]
            for digest in stale:
                del memory[digest]

    async def check(self, token: str, *, held_back: bool = False) -> Principal | Refusal:
        """Return the device of the token. Raises what the pool raises when the database is away.

        held_back: the lookup may wait a moment for others (DeviceLookup).
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            return _MALFORMED
        digest = hash_token(token)
        known = self._recall(self._accepted, digest) or self._recall(self._refused, digest)
        if known is not None:
            return known
        row = await self._lookup.find(match[1], digest, held_back=held_back)
        if row is None:
            return self._note(self._refused, digest, _UNKNOWN)
        actor = Actor("device", row["device_id"], row["device_name"])
        if not row["enabled"]:
            disabled = Refusal("forbidden", "The device is disabled.", tenant_id=match[1], actor=actor)
            return self._note(self._refused, digest, disabled)
        return self._note(self._accepted, digest, Principal(match[1], "device", actor, is_gateway=row["is_gateway"]))

    def _recall(self, memory: Memory[V], digest: bytes) -> V | None:
        until, verdict = memory.get(digest, (0.0, None))
        if verdict is None or until <= self._clock():
            memory.pop(digest, None)
            return None
        return verdict

    def _note(self, memory: Memory[V], digest: bytes, verdict: V) -> V:
        memory[digest] = (self._clock() + self._remember_seconds, verdict)
        if len(memory) > self._most_remembered:
            memory.popitem(last=False)
        return verdict


def _digest_of_any(token: str) -> bytes:
    """The digest of any text: a header may hold what no token does."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
