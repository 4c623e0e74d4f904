"""Anchors: places outside the database for signed checkpoints, beyond the reach of database administrators."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.shared import tracing
from services.shared.backoff import backoff_seconds
from services.shared.db import Pool
from services.shared.sealed_log.kept import TOMBSTONES
from services.shared.sealed_log.note import split_notes

log = logging.getLogger(__name__)

ANCHOR_SECONDS = 10.0
"""Timeout of an anchor, so that one that hangs does not delay the next note of the others."""


class Anchor(Protocol):
    """A place for checkpoints. name: label of its metrics."""

    name: str

    async def keep(self, note: str) -> None:
        """Return once the checkpoint is stored. Raises OSError or httpx.HTTPError."""

    async def keep_tombstone(self, note: str) -> None:
        """Return once the tombstone of a month is stored; repeating it is harmless."""


class FileAnchor:
    """A directory with a file of checkpoints for each UTC day and one file of tombstones, each note synced.

    It is evidence as long as the database's administrators cannot write there.
    """

    name = "file"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A separate thread, so that a disk that hangs does not occupy the shared ones.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="audit-anchor")
        self._writing: asyncio.Future[None] | None = None

    async def keep(self, note: str) -> None:
        """Append a checkpoint."""
        await self._write(f"checkpoints-{datetime.now(UTC):%Y-%m-%d}.log", note)

    async def keep_tombstone(self, note: str) -> None:
        """Append a tombstone unless it is present."""
        if note not in self.tombstones():
            await self._write(TOMBSTONES, note)

    def tombstones(self) -> list[str]:
        """Return the kept tombstones."""
        path = self._directory / TOMBSTONES
        return split_notes(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else []

    def newest_of_each_day(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each file of checkpoints and the newest note in it, the newest file first."""
        for path in sorted(self._directory.glob("checkpoints-*.log"), reverse=True):
            notes = split_notes(path.read_text(encoding="utf-8", errors="replace"))
            if notes:
                yield path.name, notes[-1]

    async def _write(self, name: str, note: str) -> None:
        if self._writing is not None and not self._writing.done():
            raise TimeoutError("the disk does not answer")
        self._writing = asyncio.get_running_loop().run_in_executor(self._disk, self._append, name, note)
        await asyncio.shield(self._writing)

    def _append(self, name: str, note: str) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / name).open("a", encoding="utf-8") as file:
            # The blank line separates the note from one that an earlier crash cut off.
            file.write("\n\n" + note)
            file.flush()
            os.fsync(file.fileno())


class HttpAnchor:
    """A webhook that receives each checkpoint and tombstone as text/plain; a status below 300 means that it is kept."""

    name = "http"

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def keep(self, note: str) -> None:
        """Post a note."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        answer = await self._client.post(self._url, content=note.encode(), headers=headers)
        answer.raise_for_status()

    keep_tombstone = keep


class Anchors:
    """Hands the newest checkpoint to every anchor; a failed anchor is retried with the newest one of that time."""

    def __init__(self, anchors: Sequence[Anchor], registry: CollectorRegistry) -> None:
        self._anchors = anchors
        self._kept = dict.fromkeys((anchor.name for anchor in anchors), 0)
        self._buried: dict[str, set[str]] = {anchor.name: set() for anchor in anchors}
        self._size = Gauge(
            "pulse_audit_anchored_blocks",
            "Blocks that the newest kept checkpoint covers.",
            ["anchor"],
            registry=registry,
        )
        self._failures = Counter(
            "pulse_audit_anchor_failures",
            "Checkpoints and tombstones that an anchor did not take.",
            ["anchor"],
            registry=registry,
        )
        for anchor in anchors:
            self._size.labels(anchor.name)
            self._failures.labels(anchor.name)
        self._failed: dict[str, int] = dict.fromkeys(self._kept, 0)
        self._again_at: dict[str, float] = {}

    async def keep_newest(self, pool: Pool) -> int:
        """Hand out the newest checkpoint; return the number of anchors that took it, 0 if all have it."""
        with tracing.use_trace_id(None):
            newest = await pool.fetchrow("select tree_size, note from audit.newest_checkpoint()")
            if newest is None:
                return 0
            return sum(
                await asyncio.gather(
                    *(self._keep(anchor, newest["tree_size"], newest["note"]) for anchor in self._anchors)
                )
            )

    async def keep_tombstones(self, notes: Sequence[str]) -> bool:
        """Hand out new tombstones; return whether every anchor has every one."""
        for note in notes:
            for anchor in self._anchors:
                if note not in self._buried[anchor.name] and await self._try(anchor, anchor.keep_tombstone, note):
                    self._buried[anchor.name].add(note)
        return all(self._buried[anchor.name].issuperset(notes) for anchor in self._anchors)

    async def _keep(self, anchor: Anchor, tree_size: int, note: str) -> bool:
        """Hand out a checkpoint; return whether the anchor took it now."""
        # Back off after a failure: the next checkpoint covers all that the missed one covered.
        if tree_size == self._kept[anchor.name] or time.monotonic() < self._again_at.get(anchor.name, 0.0):
            return False
        taken = await self._try(anchor, anchor.keep, note)
        if taken:
            self._kept[anchor.name] = tree_size
            self._size.labels(anchor.name).set(tree_size)
        return taken

    async def _try(self, anchor: Anchor, keep: Callable[[str], Awaitable[None]], note: str) -> bool:
        """Return whether the anchor took the note within its timeout."""
        try:
            async with asyncio.timeout(ANCHOR_SECONDS):
                await keep(note)
        except (OSError, httpx.HTTPError) as error:
            self._failures.labels(anchor.name).inc()
            self._failed[anchor.name] += 1
            self._again_at[anchor.name] = time.monotonic() + backoff_seconds(self._failed[anchor.name])
            log.error(  # noqa: TRY400  # an operator needs no traceback
                "note not kept: %s: %s", type(error).__name__, error, extra={"anchor": anchor.name}
            )
            return False
        self._failed[anchor.name] = 0
        return True
