"""Memory that the processes behind one port share, each writing its metrics into a slot of its own.

It is anonymous and mapped before the processes are forked: there is no file that could grow or be left behind. A slot
has one writer and no lock. What kill -9 interrupts is complete up to the last eight bytes:

    state    head: epoch, odd while a slot is folded · then two words a slot: it answers, it was ready once
    slot     head: cells in use, written last when one is added
             cells      value and since, two doubles; since: when the series began, 0 while it is absent
             exemplars  crc32, length, JSON; who reads one that is being written sees that by its sum
             keys       one after the other, and where each ends

A reader copies all slots and, when the epoch moved meanwhile, copies again.
"""

import mmap
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from prometheus_client.samples import Exemplar

CELLS = 65_536
"""Values of one process, 16 a label set of a request histogram; only what is used takes memory.

A client that tries every method at every path, and every way to be refused, makes 2,500 label sets.
"""
KEY_BYTES = 288 * CELLS
EXEMPLAR_BYTES = 256
_CELL_BYTES = 16
_WORD_BYTES = 8
SLOT_BYTES = _WORD_BYTES + CELLS * (_CELL_BYTES + EXEMPLAR_BYTES + _WORD_BYTES) + KEY_BYTES
_EXEMPLAR_HEAD = struct.Struct("<IH")
# The fold of a slot takes 10 µs a value: 50 ms for 300 label sets of a histogram, 0.4 s for all that a client can make.
_READ_SECONDS = 3.0


class SlotFull(Exception):
    """There are more series than the labels of the API can make."""


class Row(NamedTuple):
    """One value of one slot as it was copied; exemplar is a record, empty when there is none."""

    key: bytes
    value: float
    since: float
    exemplar: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """What a slot held at one moment."""

    ends: Sequence[int]
    keys: bytes
    cells: Sequence[float]
    exemplars: bytes

    def rows(self) -> Iterator[Row]:
        """Every value that is there."""
        start = 0
        for index, end in enumerate(self.ends):
            since = self.cells[2 * index + 1]
            if since:
                at = index * EXEMPLAR_BYTES
                length = _EXEMPLAR_HEAD.unpack_from(self.exemplars, at)[1]
                record = self.exemplars[at : at + _EXEMPLAR_HEAD.size + length] if length else b""
                yield Row(self.keys[start:end], self.cells[2 * index], since, record)
            start = end


class Slot:
    """The values of one process. Its writer finds a value's cell by its key, once."""

    def __init__(self, memory: memoryview) -> None:
        sizes = (_WORD_BYTES, CELLS * _CELL_BYTES, CELLS * EXEMPLAR_BYTES, CELLS * _WORD_BYTES, KEY_BYTES)
        parts = []
        for size in sizes:
            parts.append(memory[:size])
            memory = memory[size:]
        self._used = parts[0].cast("q")
        self.cells = parts[1].cast("d")
        self._exemplars = parts[2]
        self._ends = parts[3].cast("q")
        self._keys = parts[4]
        self._found: dict[bytes, int] = {}

    def find(self, key: bytes) -> int:
        """Index of the cell of a key, made when there is none. Raises SlotFull."""
        index = self._found.get(key)
        if index is None:
            index = self._found[key] = self._add(key)
        return index

    def _add(self, key: bytes) -> int:
        used = self._used[0]
        start = self._ends[used - 1] if used else 0
        end = start + len(key)
        if used == CELLS or end > KEY_BYTES:
            raise SlotFull
        self._keys[start:end] = key
        self._ends[used] = end
        self.write_exemplar(used, b"")
        self.cells[2 * used] = 0.0
        self.cells[2 * used + 1] = time.time()
        self._used[0] = used + 1
        return used

    def write_exemplar(self, index: int, record: bytes) -> None:
        """Replace the exemplar of a cell."""
        record = record or bytes(_EXEMPLAR_HEAD.size)
        at = index * EXEMPLAR_BYTES
        self._exemplars[at : at + len(record)] = record

    def read_exemplar(self, index: int) -> bytes:
        """The record of a cell's exemplar."""
        return bytes(self._exemplars[index * EXEMPLAR_BYTES : (index + 1) * EXEMPLAR_BYTES])

    def copy(self) -> Copy:
        """What is there now; a value that changes meanwhile is copied as it was or as it is."""
        used = self._used[0]
        ends = self._ends[:used].tolist()
        return Copy(
            ends=ends,
            keys=bytes(self._keys[: ends[-1] if ends else 0]),
            cells=self.cells[: 2 * used].tolist(),
            exemplars=bytes(self._exemplars[: used * EXEMPLAR_BYTES]),
        )

    def clear(self) -> None:
        """Make room for the next process."""
        self._used[0] = 0
        self._found.clear()


class Slots:
    """The slots of `count` workers, then the parent's, then that of what the dead have left."""

    def __init__(self, count: int) -> None:
        self.count = count
        words = _WORD_BYTES * (1 + 2 * (count + 1))
        memory = memoryview(mmap.mmap(-1, words + (count + 2) * SLOT_BYTES))
        self._words = memory[:words].cast("q")
        starts = [words + number * SLOT_BYTES for number in range(count + 2)]
        self._slots = [Slot(memory[start : start + SLOT_BYTES]) for start in starts]
        self.parent = count

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    @property
    def retired(self) -> Slot:
        """What the dead have left."""
        return self._slots[-1]

    def answering(self) -> list[int]:
        """Numbers of the processes that can be asked for fresh values."""
        return [number for number in range(self.count + 1) if self._words[1 + 2 * number]]

    def set_answering(self, number: int, *, answers: bool) -> None:
        """Whether a process can be asked."""
        self._words[1 + 2 * number] = answers

    def note_ready(self, number: int) -> None:
        """A worker is ready; that one was remains true when it dies."""
        self._words[2 + 2 * number] = 1

    def fault(self) -> str | None:
        """Why the workers are not ready together, None once each was: that one starts anew costs the others nothing."""
        ready = sum(self._words[2 + 2 * number] for number in range(self.count))
        return None if ready == self.count else f"starting: {ready} of {self.count} workers are ready"

    def begin_fold(self) -> None:
        """From here on readers wait."""
        self._words[0] += 1

    def end_fold(self) -> None:
        """What they read now is whole again."""
        self._words[0] += 1

    def copies(self) -> list[Copy]:
        """All slots, none of them while it is folded into another. Raises TimeoutError when a fold does not end."""
        deadline = time.monotonic() + _READ_SECONDS
        while True:
            epoch = self._words[0]
            copies = [slot.copy() for slot in self._slots]
            if epoch % 2 == 0 and self._words[0] == epoch:
                return copies
            if time.monotonic() > deadline:
                raise TimeoutError("the metrics of a worker that died are not added up")
            time.sleep(0.001)


def pack_exemplar(exemplar: Exemplar) -> bytes:
    """The record of an exemplar; empty when it is longer than a record may be."""
    text = orjson.dumps((exemplar.labels, exemplar.value, exemplar.timestamp))
    if _EXEMPLAR_HEAD.size + len(text) > EXEMPLAR_BYTES:
        return b""
    return _EXEMPLAR_HEAD.pack(zlib.crc32(text), len(text)) + text


def unpack_exemplar(record: bytes) -> Exemplar | None:
    """The exemplar of a record, None when there is none or it was being written."""
    if not record:
        return None
    total, length = _EXEMPLAR_HEAD.unpack_from(record)
    text = record[_EXEMPLAR_HEAD.size : _EXEMPLAR_HEAD.size + length]
    return Exemplar(*orjson.loads(text)) if length and zlib.crc32(text) == total else None
