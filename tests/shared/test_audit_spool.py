"""The spool on the disk: acknowledged rows are read again after torn writes, damage and full disks."""

import errno
import fcntl
import os
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared.audit import AuditEvent
from services.shared.audit_writer.line import Line, make_line
from services.shared.audit_writer.spool import directories, size_of
from services.shared.audit_writer.spool_directory import (
    MAGIC,
    SEGMENT_BYTES,
    Damage,
    SpoolDirectory,
    SpoolFull,
    encode_lines,
    read_segment,
)
from tests.support.trail import open_trail
from tests.support.wait import until

PLENTY = 1 << 30


def lines(count: int, start: int = 0) -> list[Line]:
    """Return rows with distinct entity ids."""
    return [
        make_line(AuditEvent(event_type="auth.login_success", message="m", entity_id=f"é{number}"), "ui_iot")
        for number in range(start, start + count)
    ]


def read_all(directory: SpoolDirectory) -> list[Line]:
    """Return the rows in all segments."""
    return [line for file in directory.segments() for line in read_segment(file).lines]


@pytest.fixture
def directory(spool_dir: Path) -> Iterator[SpoolDirectory]:
    """A directory of a live process."""
    made = SpoolDirectory.create(spool_dir, "ui_iot")
    yield made
    made.close()


def test_what_is_appended_is_read_in_order(directory: SpoolDirectory) -> None:
    """Over several appends and segments."""
    rows = lines(9)
    for start in (0, 3, 6):
        directory.append(rows[start : start + 3], PLENTY)
        directory.rotate()
    assert len(directory.segments()) == 3
    assert read_all(directory) == rows
    assert directory.records == 9
    assert directory.size == sum(file.stat().st_size for file in directory.segments())


def test_other_users_may_not_read_it(directory: SpoolDirectory, spool_dir: Path) -> None:
    """Rows hold names and addresses."""
    directory.append(lines(1), PLENTY)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (spool_dir, directory.path)}
    assert modes == {0o700}
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.path.iterdir()} == {0o600}


def test_segments_are_bounded(directory: SpoolDirectory) -> None:
    """A long outage of the database makes many files, each small enough to be read at once."""
    row = lines(1)
    size = len(encode_lines(row))
    count = SEGMENT_BYTES // size // 2 + 1
    for _ in range(3):
        directory.append(row * count, PLENTY)
    assert len(directory.segments()) == 3
    assert all(file.stat().st_size <= SEGMENT_BYTES for file in directory.segments())


def test_every_torn_tail_is_an_append_without_acknowledgement(directory: SpoolDirectory) -> None:
    """Cut at any byte, a segment gives its whole records and claims no damage."""
    rows = lines(3)
    directory.append(rows, PLENTY)
    [file] = directory.segments()
    content = file.read_bytes()
    ends = [len(MAGIC) + len(encode_lines(rows[:count])) for count in range(4)]
    for length in range(len(content)):
        file.write_bytes(content[:length])
        found = read_segment(file)
        assert found.damages == []
        assert list(found.lines) == rows[: max([count for count in range(4) if ends[count] <= length], default=0)]
    file.write_bytes(content[: ends[2]] + bytes(4096))
    assert (list(read_segment(file).lines), read_segment(file).damages) == (rows[:2], [])


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damage_in_the_middle_costs_only_what_it_hit(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For any overwritten bytes of one record, every other record is read, and the damaged place is reported."""
    rows = lines(5)
    parts = [encode_lines([row]) for row in rows]
    hit = data.draw(st.integers(0, 3))
    first = data.draw(st.integers(0, len(parts[hit]) - 1))
    length = data.draw(st.integers(1, len(parts[hit]) - first))
    rubbish = data.draw(st.binary(min_size=length, max_size=length))
    file = tmp_path_factory.mktemp("segment") / "1"
    damaged = parts[hit][:first] + rubbish + parts[hit][first + length :]
    file.write_bytes(MAGIC + b"".join([*parts[:hit], damaged, *parts[hit + 1 :]]))
    found = read_segment(file)
    if damaged == parts[hit]:
        assert (list(found.lines), list(found.damages)) == (rows, [])
        return
    assert list(found.lines) == rows[:hit] + rows[hit + 1 :]
    offset = len(MAGIC) + sum(map(len, parts[:hit]))
    assert list(found.damages) == [Damage(offset, len(parts[hit]))]


def test_the_bound_holds(directory: SpoolDirectory) -> None:
    """No byte beyond it is written, and rows accepted before stay readable."""
    rows = lines(50)
    taken = 0
    with pytest.raises(SpoolFull):  # noqa: PT012  # which one it is does not matter
        for row in rows:
            directory.append([row], 4096)
            taken += 1
    assert 5 < taken < 50
    assert directory.size <= 4096
    assert read_all(directory) == rows[:taken]


def test_the_bound_is_for_all_processes_together(directory: SpoolDirectory, spool_dir: Path) -> None:
    """A process that crashes repeatedly while the database is away does not fill the disk."""
    other = SpoolDirectory.create(spool_dir, "ui_iot")
    other.append(lines(10), PLENTY)
    assert size_of(spool_dir, directory.path) == other.size > 1000
    other.close()


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Yield the kernel writes files up to this size and refuses the rest, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_ends_halfway_leaves_nothing(directory: SpoolDirectory) -> None:
    """The kernel writes half of a record: the file is cut after its last whole record, and another begins."""
    rows = lines(3)
    directory.append(rows[:1], PLENTY)
    good = directory.size
    with longest_file(good + 50), pytest.raises(OSError, match="File too large"):
        directory.append(rows[1:2], PLENTY)
    assert directory.size == good
    assert [file.stat().st_size for file in directory.segments()] == [good]
    directory.append(rows[2:], PLENTY)
    assert read_all(directory) == [rows[0], rows[2]]
    assert directory.records == 2


def test_a_failed_fsync_is_believed(spool_dir: Path) -> None:
    """The content on disk is unknown after a failed fsync: the rows are taken back and the file is not used again."""
    fails = False

    def sync(handle: int) -> None:
        if fails:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(handle)

    directory = SpoolDirectory.create(spool_dir, "ui_iot", sync=sync)
    rows = lines(3)
    directory.append(rows[:1], PLENTY)
    fails = True
    with pytest.raises(OSError, match="Input/output"):
        directory.append(rows[1:2], PLENTY)
    fails = False
    directory.append(rows[2:], PLENTY)
    assert len(directory.segments()) == 2
    assert read_all(directory) == [rows[0], rows[2]]
    directory.close()


@pytest.fixture
def small_disk(tmp_path: Path, require: Callable[[str], str]) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount: a full disk is NOT tested, a full file is")
    path = tmp_path / "disk"
    path.mkdir()
    mount, unmount = require("mount"), require("umount")
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    yield path
    subprocess.run([unmount, path], check=True)


async def test_a_full_disk_blocks_and_empties_again(small_disk: Path, app_url: str, conn: asyncpg.Connection) -> None:
    """ENOSPC from a real file system: rows acknowledged before are stored, and then the disk has room again."""
    async with open_trail(
        app_url, audit_database_seconds=0.2, audit_spool_dir=small_disk / "spool", audit_when_blocked="allow"
    ) as trail:
        await conn.execute("begin; lock table audit_log in access exclusive mode")
        while not trail.total("events_blocked_total"):
            await trail.record(50)
        acknowledged = trail.total("events_spooled_total")
        assert acknowledged >= 200
        await conn.execute("commit")
        await until(lambda: trail.total("spool_records") == 0 and trail.total("gaps_total") >= 1)
        await trail.record()
    kept = await conn.fetchval("select count(*) from audit_log where event_type = 'auth.login_success'")
    lost = await conn.fetchval("select sum((details ->> 'count')::int) from audit_log where event_type = 'audit.gap'")
    assert kept >= acknowledged + 1
    assert kept + lost >= trail.sent
    assert directories(small_disk / "spool") == []


def test_a_directory_is_adopted_only_when_its_process_is_dead(spool_dir: Path) -> None:
    """The kernel's lock shows which process is alive; only one of two adopters gets the directory."""
    living = SpoolDirectory.create(spool_dir, "ui_iot")
    living.append(lines(2), PLENTY)
    assert SpoolDirectory.adopt(living.path) is None
    living.close()
    adopted = SpoolDirectory.adopt(living.path)
    assert adopted is not None
    assert SpoolDirectory.adopt(living.path) is None
    assert len(read_all(adopted)) == 2
    for file in adopted.segments():
        adopted.remove(file, 2)
    adopted.close()
    assert directories(spool_dir) == []
    assert SpoolDirectory.adopt(living.path) is None


def test_a_link_is_no_directory_of_the_spool(spool_dir: Path, tmp_path: Path) -> None:
    """A link could make the service empty another directory."""
    spool_dir.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    link = spool_dir / "ui_iot-1-00000000"
    link.symlink_to(tmp_path / "elsewhere")
    assert SpoolDirectory.adopt(link) is None


def test_a_directory_can_be_made_while_another_process_looks_for_dead_ones(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between mkdir and lock a directory looks like that of a dead process, so its maker makes another."""
    flock, taken = fcntl.flock, 0

    def race(handle: int, how: int) -> None:
        nonlocal taken
        taken += 1
        if taken == 1:
            raise BlockingIOError
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", race)
    made = SpoolDirectory.create(spool_dir, "ui_iot")
    assert made.path.exists()
    assert taken == 2
    made.close()


def test_a_file_system_without_locks_is_refused_in_time(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lock, the directories of live and dead processes look the same."""

    def refuse(_handle: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="can be locked"):
        SpoolDirectory.create(spool_dir, "ui_iot")
    assert directories(spool_dir) == []


async def test_damage_is_a_row_and_its_file_is_kept(app_url: str, conn: asyncpg.Connection, spool_dir: Path) -> None:
    """Readable rows are stored, the damage is named, and repeated discovery reports it once."""
    dead = SpoolDirectory.create(spool_dir, "ui_iot")
    dead.append(lines(5), PLENTY)
    [file] = dead.segments()
    dead.close()
    content = bytearray(file.read_bytes())
    content[content.index("é2".encode())] ^= 0xFF
    file.write_bytes(bytes(content))
    async with open_trail(app_url) as trail:
        await until(lambda: trail.total("gaps_total") == 1)
        await until(lambda: trail.total("events_drained_total") == 4)
    aside = file.with_name(file.name + ".corrupt")
    await until(aside.exists)
    assert SpoolDirectory.adopt(file.parent) is None
    gap = await conn.fetchrow("select details from audit_log where event_type = 'audit.gap'")
    details = orjson.loads(gap["details"])
    assert details["file"] == f"{file.parent.name}/{file.name}"
    assert details["bytes"] == len(encode_lines(lines(3)[2:]))
    assert details["count"] == 1
    aside.rename(file)
    async with open_trail(app_url) as trail:
        await until(lambda: trail.total("gaps_total") == 1)
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'audit.gap'") == 1
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'auth.login_success'") == 4
