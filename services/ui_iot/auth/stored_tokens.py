"""Opaque tokens of the form <prefix><tenant>_<secret>. The database stores only their SHA-256."""

import hashlib
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias, TypeVar

import asyncpg
from cachetools import LRUCache

from services.shared.db import Pool
from services.shared.tenant_id import TENANT_ID_PATTERN
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.token_lookup import TokenLookup

V = TypeVar("V", Principal, Refusal)
Memory: TypeAlias = LRUCache[bytes, tuple[float, V]]
"""Verdicts by token digest, each with the monotonic time at which it ends."""


def hash_token(token: str) -> bytes:
    """Return the SHA-256 of the whole token. A random secret needs no slower hash.

    The text may be one that UTF-8 cannot encode, because a header may hold any.
    """
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


class StoredTokens(ABC):
    """Finds the owners of tokens and caches the answers for a few seconds."""

    prefix: ClassVar[str]
    form: ClassVar[re.Pattern[str]]
    """Pattern of the tokens. Its group is the tenant."""
    query: ClassVar[str]
    """Takes arrays of tenants and digests and returns rows with the column `place`."""
    malformed: ClassVar[Refusal]
    unknown: ClassVar[Refusal]

    def __init_subclass__(cls) -> None:
        cls.form = re.compile(rf"{cls.prefix}({TENANT_ID_PATTERN})_[A-Za-z0-9_-]{{43}}", re.ASCII)

    def __init__(
        self,
        pool: Callable[[], Pool],
        *,
        remember_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        most_remembered: int = 10_000,
    ) -> None:
        self._pool = pool
        self._lookup = TokenLookup(pool, self.query)
        self._remember_seconds = remember_seconds
        self._clock = clock
        # Separate caches: a flood of unknown tokens must not evict the accepted ones.
        self._accepted: Memory[Principal] = LRUCache(most_remembered)
        self._refused: Memory[Refusal] = LRUCache(most_remembered)

    @classmethod
    def make(cls, tenant_id: str) -> tuple[str, bytes]:
        """Return a token with 256 random bits, which is shown once, and the hash to store."""
        token = f"{cls.prefix}{tenant_id}_{secrets.token_urlsafe(32)}"
        return token, hash_token(token)

    def remembered(self, token: str) -> Principal | None:
        """Return the cached owner of an accepted token, or None."""
        return self._recall(self._accepted, hash_token(token))

    def forget(self, tenant_id: str, owner_id: str) -> None:
        """Drop the owner's cached verdicts after this process has changed its row."""
        for memory in (self._accepted, self._refused):
            stale = [
                digest
                for digest, (_, verdict) in memory.items()
                if verdict.tenant_id == tenant_id and verdict.actor is not None and verdict.actor.id == owner_id
            ]
            for digest in stale:
                del memory[digest]

    async def check(self, token: str, *, held_back: bool = False) -> Principal | Refusal:
        """Return the owner of the token, or its refusal. Raises the pool's errors if the database is away.

        held_back: wait for the next shared lookup (TokenLookup).
        """
        match = self.form.fullmatch(token)
        if match is None:
            return self.malformed
        digest = hash_token(token)
        known = self._recall(self._accepted, digest) or self._recall(self._refused, digest)
        if known is not None:
            return known
        row = await self._lookup.find(match[1], digest, held_back=held_back)
        verdict = self.unknown if row is None else self.judge(match[1], row)
        if isinstance(verdict, Principal):
            return self._note(self._accepted, digest, verdict)
        return self._note(self._refused, digest, verdict)

    @abstractmethod
    def judge(self, tenant_id: str, row: asyncpg.Record) -> Principal | Refusal:
        """Return the owner that the row describes, or its refusal."""

    def _recall(self, memory: Memory[V], digest: bytes) -> V | None:
        until, verdict = memory.get(digest, (0.0, None))
        if verdict is None or until <= self._clock():
            memory.pop(digest, None)
            return None
        return verdict

    def _note(self, memory: Memory[V], digest: bytes, verdict: V) -> V:
        memory[digest] = (self._clock() + self._remember_seconds, verdict)
        return verdict
