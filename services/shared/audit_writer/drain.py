"""Moves spooled rows to the database in order, including those of dead processes."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.shared.audit_writer.gaps import make_damage_line, make_remains_line
from services.shared.audit_writer.journal import Journal, Store
from services.shared.audit_writer.ledger import read_remains
from services.shared.audit_writer.line import Line
from services.shared.audit_writer.spool import Spool, directories
from services.shared.audit_writer.spool_directory import Damage, SpoolDirectory, read_segment

log = logging.getLogger(__name__)

BATCH = 1000
# Longer than the limit for a row with a waiter: a slow database is better than none.
STORE_SECONDS = 10.0
READ_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Stored:
    """A segment whose rows are stored."""

    file: Path
    lines: int
    damages: int

    @property
    def records(self) -> int:
        """Number of events that the trail has or reports as lost, at least one for each damaged place."""
        return self.lines + self.damages


class Drain:
    """Empties spool directories into the database. Every step may be repeated, because rows are stored once."""

    def __init__(self, spool: Spool, journal: Journal, store: Store, *, service: str) -> None:
        self.drained = 0
        self.gaps = 0
        self._spool = spool
        self._journal = journal
        self._store = store
        self._service = service

    async def drain_own(self) -> bool:
        """Store a segment that this process spooled; return False while the database is away or too slow."""
        if self._journal.is_away and not await self._answers():
            return False
        directory = self._spool.directory
        if directory is None or not directory.records:
            # No row is left to store, so the answer alone shows that the database is back.
            self._journal.is_away = False
        elif not await self._drain_own(directory):
            return False
        return not self._journal.is_away

    @property
    def has_own(self) -> bool:
        """True if this process has spooled rows."""
        return self._spool.records > 0

    async def _drain_own(self, directory: SpoolDirectory) -> bool:
        """Store the oldest segment only, because the keeper has other work between two segments."""
        for file in (await self._spool.run(directory.segments))[:1]:
            found = await self._store_segment(file)
            if found is None:
                return False
            # The ledger first: after a kill in between, the next process finds more rows than it counts, and no gap.
            account = self._spool.ledger.accounts["spooled"]
            # Rows that a slow disk took after the timeout are found here and were never counted.
            account.settle(min(found.records, account.outstanding))
            await self._end(directory, found)
        return True

    async def _answers(self) -> bool:
        """Return whether the database answers at all, before a segment is closed for it."""
        deadline = asyncio.get_running_loop().time() + self._journal.database_seconds
        return await self._store.settle([], deadline=deadline)

    async def adopt(self) -> bool:
        """Store the rows of dead processes and report their losses; return False if the database is away."""
        await self._spool.measure_others()
        await self._spool.stock_reserve()
        own = self._spool.directory.path if self._spool.directory else None
        for path in await self._spool.run(directories, self._spool.root, seconds=READ_SECONDS):
            try:
                if path != own and not await self._adopt(path):
                    return False
            except OSError as error:
                log.warning("cannot adopt %s: %s", path.name, error.strerror or error)
        return True

    async def _adopt(self, path: Path) -> bool:
        directory = await self._spool.run(SpoolDirectory.adopt, path)
        if directory is None:
            return True
        try:
            if not await self._drain_dead(directory):
                return False
        finally:
            await self._spool.run(directory.close)
        log.info("adopted the audit spool of a dead process", extra={"directory": path.name})
        return True

    async def _drain_dead(self, directory: SpoolDirectory) -> bool:
        segments = []
        for file in await self._spool.run(directory.segments):
            found = await self._store_segment(file)
            if found is None:
                return False
            segments.append(found)
        remains = await self._spool.run(read_remains, directory.path)
        missing = remains.without_spooled(sum(found.records for found in segments)) if remains else None
        if missing is not None:
            if not await self._store_rows([make_remains_line(missing)]):
                return False
            self.gaps += 1
        # After everything is stored, the ledger first: after a kill in between, the same rows are stored again.
        await self._spool.run(directory.forget_ledger)
        for found in segments:
            await self._end(directory, found)
        return True

    async def _store_segment(self, file: Path) -> "_Stored | None":
        """Store a segment's rows and report its damage; return None if the database is away."""
        contents = await self._spool.run(read_segment, file, seconds=READ_SECONDS)
        for start in range(0, len(contents.lines), BATCH):
            if not await self._store_rows(contents.lines[start : start + BATCH]):
                return None
        if contents.damages and not await self._report_damage(file, contents.damages):
            return None
        return _Stored(file, len(contents.lines), len(contents.damages))

    async def _end(self, directory: SpoolDirectory, found: "_Stored") -> None:
        self.drained += found.lines
        end = directory.set_aside if found.damages else directory.remove
        await self._spool.run(end, found.file, found.records)

    async def _store_rows(self, lines: Sequence[Line]) -> bool:
        clock = asyncio.get_running_loop().time
        started = clock()
        stored = await self._store.settle(lines, deadline=started + STORE_SECONDS)
        if stored and clock() - started < self._journal.database_seconds:
            self._journal.is_away = False
        return stored

    async def _report_damage(self, file: Path, damages: Sequence[Damage]) -> bool:
        line = await self._spool.run(make_damage_line, file, damages, self._service)
        log.error("an audit spool segment is damaged", extra={"file": file.name, "damages": len(damages)})
        reported = await self._store_rows([line])
        self.gaps += reported
        return reported
