"""The check of blocks as a chain and a tree against every checkpoint, without any row of audit_log."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from services.shared.sealed_log.block import ENTRY_SEGMENT, Block, Broken
from services.shared.sealed_log.entry import Entry, open_entry
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.note import BadNote, Checkpoint, VerifierKey, open_checkpoint, parse_unchecked
from services.shared.sealed_log.tree import EMPTY_ROOT, Frontier, Node

NOTHING_SEEN = "1:1:"


class Chain:
    """Checks blocks in order. size: number of blocks so far; rows: number of their rows."""

    def __init__(
        self,
        keys: Sequence[VerifierKey],
        kept: Sequence[Kept],
        since: datetime | None = None,
        *,
        only_newest_signature: bool = False,
    ) -> None:
        self.size = 0
        self.rows = 0
        self.rows_by_segment: Counter[date] = Counter()
        self.last: Block | None = None
        self.entries: list[Entry] = []
        self.epoch: int | None = None
        """Newest epoch that rows may have; an entry raises it."""
        self.first_since: int | None = None
        """First block of the first pass that sealed rows at or after `since`."""
        self.trusted = 0
        """Number of blocks up to the last place where the log, a checkpoint in the database and a kept one agreed."""
        self._keys = keys
        self._kept = deque(kept)
        self._since = since
        self._frontier = Frontier()
        self._pass_start = 0
        self._agreed = 0
        self._newest_kept: Kept | None = None
        self._signed = 0
        self._retired: set[str] = set()
        self._only_newest_signature = only_newest_signature
        self._newest_signed: tuple[str, str] | None = None

    def begin_at(self, block: Block, frontier: Frontier) -> None:
        """Start in the middle of the log; a matching root proves the given hashes."""
        self.size = self._agreed = self._signed = self._pass_start = block.block_no
        self.rows = block.first_position
        self._frontier = frontier
        self._kept = deque(kept for kept in self._kept if kept.tree_size > self.size)

    def add(self, row: Mapping[str, Any]) -> list[Node]:
        """Check the next row of audit.blocks; return the inner nodes that it completes. Raises Broken."""
        number = row["block_no"]
        if number != self.size:
            raise Broken(f"block {self.size} is missing: block {number} comes after it", block_no=self.size)
        block = Block.read(row)
        self._check(block, row)
        if block.entry is None:
            self._check_rows(block)
            self.rows_by_segment[block.segment] += block.row_count
        else:
            self._take_entry(block)
        self.last = block
        self.size += 1
        self.rows += block.row_count
        if self.first_since is None and (self._since is None or block.sealed_at >= self._since):
            self.first_since = self._pass_start
        nodes = list(self._frontier.append(row["leaf_hash"]))
        while self._kept and self._kept[0].tree_size == self.size:
            self._hold_against(self._kept.popleft())
        return nodes

    def _check(self, block: Block, row: Mapping[str, Any]) -> None:
        number = block.block_no
        xmax = block.snapshot.split(":")[1]
        try:
            sound = block.leaf() == row["leaf_hash"] and xmax == row["snapshot_xmax"]
        except (TypeError, OverflowError):
            sound = False  # no sealed block has an infinite time
        if not sound:
            raise Broken(
                f"block {number} was altered: its header is not what was hashed into the tree", block_no=number
            )
        if block.first_position != self.rows:
            raise Broken(
                f"block {number} begins at row {block.first_position}, and {self.rows} were sealed before it",
                block_no=number,
            )

    def _check_rows(self, block: Block) -> None:
        number = block.block_no
        epoch = epoch_of(block.snapshot)
        if self.epoch is None:
            self.epoch = epoch
        if epoch > self.epoch:
            raise Broken(f"block {number} was sealed on another server, and no entry says so", block_no=number)
        if self.last is not None and (block.previous_snapshot, block.snapshot) == (
            self.last.previous_snapshot,
            self.last.snapshot,
        ):
            follows = block.segment > self.last.segment
        else:
            self._pass_start = number
            follows = block.previous_snapshot == self._snapshot_before(block)
        if not follows:
            raise Broken(f"block {number} does not take up where the block before it ended", block_no=number)

    def _snapshot_before(self, block: Block) -> str:
        if self.last is not None:
            return self.last.snapshot
        return NOTHING_SEEN if self.size == 0 else block.previous_snapshot

    def _take_entry(self, block: Block) -> None:
        number = block.block_no
        snapshot = self._snapshot_before(block)
        held = (block.previous_snapshot, block.snapshot, block.row_count, block.rows_root, block.segment)
        try:
            entry, key = open_entry(block.entry or "", self._keys)
        except BadNote as fault:
            raise Broken(f"block {number} holds an entry that is not valid: {fault}", block_no=number) from None
        said = (entry.size, entry.root, entry.row_count)
        if (
            held != (snapshot, snapshot, 0, EMPTY_ROOT, ENTRY_SEGMENT)
            or said != (number, self._frontier.root(), self.rows)
            or key.key_id in self._retired
        ):
            raise Broken(f"block {number} holds an entry that was made for another place in the log", block_no=number)
        self._pass_start = number
        self.entries.append(entry)
        self.epoch = entry.after.epoch
        self._kept = deque(kept for kept in self._kept if not entry.leaves_out(kept.tree_size, kept.signed_at))
        if entry.old is not None:
            self._retired.add(VerifierKey.parse(entry.old).key_id)

    def _hold_against(self, kept: Kept) -> None:
        if kept.key_id in self._retired:
            raise Broken(
                f"{kept} is signed by key {kept.key_id}, which another key had replaced: the old key is in use"
            )
        if (kept.root, kept.row_count) != (self._frontier.root(), self.rows):
            raise Broken(
                f"blocks {self._agreed} to {self.size - 1} are not those that were sealed: {kept} says so, "
                f"{f'up to block {self._agreed - 1} all agree' if self._agreed else 'and it is the first one'}",
                block_no=self._agreed,
            )
        self._agreed = self.size
        self._newest_kept = kept

    def checkpoint(self, row: Mapping[str, Any]) -> None:
        """Check the row of audit.checkpoints over the blocks so far. Raises Broken."""
        size = row["tree_size"]
        if row["key_id"] in self._retired:
            raise Broken(
                f"the checkpoint over {size} blocks in the database is signed by key {row['key_id']}, which another "
                "key had replaced: the old key is in use"
            )
        try:
            signed = self._open(row["note"], row["key_id"])
        except BadNote as fault:
            raise Broken(f"the checkpoint over {size} blocks in the database is not valid: {fault}") from None
        columns = (row["tree_size"], row["root"], row["row_count"], row["signed_at"])
        if columns != (signed.tree_size, signed.root, signed.row_count, signed.signed_at):
            raise Broken(f"the checkpoint over {size} blocks in the database was altered: its note says otherwise")
        if (signed.tree_size, signed.root, signed.row_count) != (self.size, self._frontier.root(), self.rows):
            raise Broken(
                f"blocks {self._signed} to {size - 1} are not those that were signed: the signed checkpoint over "
                f"{size} blocks says so",
                block_no=self._signed,
            )
        self._signed = self.size
        if self._agreed == self.size:
            self.trusted = self.size

    def _open(self, note: str, key_id: str) -> Checkpoint:
        kept = self._newest_kept
        if self._only_newest_signature:
            self._newest_signed = (note, key_id)
            return parse_unchecked(note)
        if kept is not None and (hash(note), key_id) == (kept.note_hash, kept.key_id):
            # The same note was kept outside, where its signature was checked. Signatures take most of a check's time.
            return parse_unchecked(note)
        return open_checkpoint(note, [key for key in self._keys if key.key_id == key_id])

    def close(self) -> None:
        """Check that nothing is missing at the end. Raises Broken."""
        if self._kept:
            newest = self._kept[-1]
            raise Broken(
                f"the log ends after {self.size} blocks with {self.rows} rows, and {newest} covers "
                f"{newest.tree_size} blocks with {newest.row_count} rows: its end was cut off",
                block_no=self.size,
            )
        if self._newest_signed is not None:
            note, key_id = self._newest_signed
            try:
                open_checkpoint(note, [key for key in self._keys if key.key_id == key_id])
            except BadNote as fault:
                raise Broken(f"the newest checkpoint in the database is not valid: {fault}") from None
        if self._signed != self.size:
            raise Broken(
                f"no signed checkpoint covers the last {self.size - self._signed} blocks", block_no=self._signed
            )


def epoch_of(snapshot: str) -> int:
    """Return the epoch of the newest transactions that a snapshot sees."""
    return int(snapshot.split(":")[1]) >> 48


def in_words(time: datetime) -> str:
    """Return a readable time in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
