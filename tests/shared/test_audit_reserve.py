"""A process that starts while the disk is full can still record its losses."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.shared.audit_writer.ledger import (
    LEDGER_BYTES,
    RESERVE_FILES,
    EventLedger,
    read_remains,
    stock_reserve,
    take_reserve,
)
from services.shared.audit_writer.spool import directories
from services.shared.audit_writer.spool_directory import SpoolDirectory


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow to the size of a ledger; an existing file of that size stays writable."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEDGER_BYTES // 2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lose_some(root: Path, count: int) -> Path:
    """Return the directory of a process that took the given number of events and was killed."""
    directory = SpoolDirectory.create(root, "ui_iot")
    ledger = EventLedger(directory.path, "ui_iot")
    ledger.accounts["lost"].take(1_000_000_000, count)
    ledger.close()
    directory.close()
    return directory.path


def test_a_full_disk_has_room_for_the_ledgers_in_reserve(tmp_path: Path) -> None:
    """Each process that starts there takes one, and each reports its losses."""
    stock_reserve(tmp_path, LEDGER_BYTES)
    with full_disk():
        left = [lose_some(tmp_path, count) for count in range(1, RESERVE_FILES + 1)]
        remains = [read_remains(path) for path in left]
        with pytest.raises(OSError, match="No space left"):
            lose_some(tmp_path, 1)
    assert [one.counts["lost"] for one in remains if one] == list(range(1, RESERVE_FILES + 1))


def test_the_reserve_is_filled_up_when_there_is_room(tmp_path: Path) -> None:
    """A file that a full disk left incomplete does not count."""
    with full_disk():
        stock_reserve(tmp_path, LEDGER_BYTES)
        assert list(tmp_path.iterdir()) == []
    stock_reserve(tmp_path, LEDGER_BYTES)
    assert take_reserve(tmp_path, tmp_path / "ledger")
    stock_reserve(tmp_path, LEDGER_BYTES)
    sizes = [file.stat().st_size for file in tmp_path.glob(".reserve-*")]
    assert sizes == [LEDGER_BYTES] * RESERVE_FILES
    assert directories(tmp_path) == []


def test_with_room_the_reserve_is_not_touched(tmp_path: Path) -> None:
    stock_reserve(tmp_path, LEDGER_BYTES)
    lose_some(tmp_path, 1)
    assert len(list(tmp_path.glob(".reserve-*"))) == RESERVE_FILES
