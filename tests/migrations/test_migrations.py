"""Our own revisions and sql/: up, down, up again, by hand and by several at once."""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from migrations.database_url import NoDatabase, database_url
from services.shared.connecting.fitness import expected_revision
from tests.support.migrator import ROOT, Migrator, dump_schema

VERSIONS = ROOT / "migrations" / "versions"
FROZEN = ROOT / "tests" / "migrations" / "revisions.frozen"
REVISIONS = sorted(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))


def alembic(*arguments: str, url: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command as a person types it and return the finished process."""
    named = {"PULSE_MIGRATION_URL": url}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSE_")} | named
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments],
        check=False,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(600)  # three migrations and dumps for each revision
def test_each_revision_goes_up_down_and_up_again_with_an_identical_schema(empty_url: str) -> None:
    """A downgrade undoes exactly its upgrade, and base keeps only the two bookkeeping tables."""
    migrator = Migrator(empty_url)
    migrator.upgrade()
    migrator.downgrade("base")
    base = dump_schema(empty_url)
    assert re.findall(r"^CREATE (?:TABLE|SCHEMA|FUNCTION|VIEW|PROCEDURE) (\S+)", base, re.MULTILINE) == [
        "public.alembic_version",
        "public.sql_layer",
    ]
    before = base
    for revision in REVISIONS:
        migrator.upgrade(revision)
        upgraded = dump_schema(empty_url)
        migrator.downgrade("-1")
        assert dump_schema(empty_url) == before
        migrator.upgrade(revision)
        assert dump_schema(empty_url) == upgraded
        before = upgraded


def test_the_second_layer_equals_the_first(empty_url: str) -> None:
    """Dropping and creating all of sql/ again leaves no difference, including grants and comments."""
    migrator = Migrator(empty_url)
    migrator.upgrade()
    first = dump_schema(empty_url)
    with psycopg.connect(empty_url) as session:
        session.execute("update public.sql_layer set sha256 = 'other'")
    assert "applied at revision" in migrator.upgrade()
    assert dump_schema(empty_url) == first


def test_a_database_that_was_lived_in_goes_down_and_up(database_url: str) -> None:
    """Partitions, rows and their guards do not prevent a downgrade."""
    with psycopg.connect(database_url) as session:
        session.execute("select ops.ensure_partitions()")
        session.execute(
            "select audit.write(array[audit.event(p_tenant_id => 'system', p_event_type => 'system.started',"
            " p_message => 'A process became ready.', p_source_service => 'test')])"
        )
    migrator = Migrator(database_url)
    migrator.downgrade("base")
    with psycopg.connect(database_url) as session:
        rows = session.execute("select relname from pg_class where relkind in ('r', 'p') and relnamespace = 2200")
        assert {row[0] for row in rows} == {"alembic_version", "sql_layer"}
    migrator.upgrade()


def test_an_extension_in_a_schema_of_ours_is_left_alone(empty_url: str) -> None:
    """The grants of the layer apply only to the layer's own views and functions."""
    Migrator(empty_url).upgrade()
    with psycopg.connect(empty_url) as session:
        session.execute("create extension pg_buffercache schema metrics")
        session.execute("update public.sql_layer set sha256 = 'other'")
    Migrator(empty_url).upgrade()
    with psycopg.connect(empty_url) as session:
        may = session.execute("select has_table_privilege('pulse_exporter', 'metrics.pg_buffercache', 'select')")
        assert may.fetchone() == (False,)


@pytest.mark.slow
def test_upgrade_and_downgrade_by_hand(empty_url: str, tmp_path: Path) -> None:
    """The commands of the README work from any directory and report the result."""
    for command, said in (
        ("upgrade head", "upgraded base -> 0001"),
        ("upgrade head", f"nothing to do: revision {REVISIONS[-1]}"),
        ("check", "No new upgrade operations detected"),
        ("downgrade base", "downgraded 0001 -> base"),
        ("upgrade head", "upgraded base -> 0001"),
    ):
        done = alembic(*command.split(), url=empty_url, directory=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout


async def test_three_upgrades_at_once_migrate_once(empty_url: str) -> None:
    """Copies of a service that all migrate at start wait for the first and then find nothing to do."""
    runs = await asyncio.gather(*(asyncio.to_thread(alembic, "upgrade", "head", url=empty_url) for _ in range(3)))
    assert [done.stderr for done in runs] == ["", "", ""]
    assert sorted(done.stdout.splitlines()[0].split(":")[0] for done in runs) == [
        "nothing to do",
        "nothing to do",
        "upgraded base -> 0001",
    ]
    with psycopg.connect(empty_url) as session:
        assert session.execute("select count(*) from public.sql_layer").fetchone() == (1,)


@pytest.mark.parametrize(
    ("arguments", "url", "line"),
    [
        (["upgrade", "head", "--sql"], None, "FAILED: --sql is refused"),
        (["upgrade", "9999"], None, "FAILED: Can't locate revision identified by '9999'"),
        (["upgrade", "head"], "postgresql://nobody@localhost:1/none", "FAILED: nothing was changed: connection failed"),
        (["current"], "postgresql://nobody@localhost:1/none", "FAILED: nothing was changed: connection failed"),
    ],
)
def test_a_mistake_is_reported_in_one_line(empty_url: str, arguments: list[str], url: str | None, line: str) -> None:
    done = alembic(*arguments, url=url or empty_url)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).strip().startswith(line)
    assert len((done.stdout + done.stderr).strip().splitlines()) == 1


def test_revisions_are_numbered_without_gaps() -> None:
    """File names show the order of the revisions, and services find the newest by name alone."""
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    chain = [(revision.revision, revision.down_revision) for revision in script.walk_revisions()][::-1]
    numbers = [f"{number:04}" for number in range(1, len(chain) + 1)]
    expected = list(zip(numbers, [None, *numbers[:-1]], strict=True))
    assert chain == expected
    assert numbers == REVISIONS
    assert expected_revision() == numbers[-1]
    names = [path.name for path in VERSIONS.iterdir() if path.is_file()]
    assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z0-9_]+\.(py|sql)", name)] == []


def test_released_revisions_are_frozen() -> None:
    """A released revision ran in databases that we cannot see; only the newest may still be unreleased."""
    lines = [line.split() for line in FROZEN.read_text().splitlines() if line and not line.startswith("#")]
    frozen = {name: digest for digest, name in lines}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VERSIONS.iterdir() if path.is_file()}
    changed = [name for name, digest in frozen.items() if found.get(name) != digest]
    assert changed == [], f"{changed} ran in databases already: restore these files, and add a new revision instead"
    open_ones = sorted(name for name in found.keys() - frozen.keys() if name[:4] != REVISIONS[-1])
    if open_ones and os.environ.get("PULSE_TEST_REGENERATE"):
        with FROZEN.open("a") as file:
            file.writelines(f"{found[name]}  {name}\n" for name in open_ones)
        open_ones = []
    assert open_ones == [], (
        f"only the newest revision may be open: freeze {open_ones} by"
        " PULSE_TEST_REGENERATE=1 python -m pytest tests/migrations/test_migrations.py -k frozen"
    )


def test_the_running_stack_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`alembic current` next to a running `./pulse up` needs no address; without one it prints the remedy."""
    for name in ("PULSE_MIGRATION_URL", "PULSE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PULSE_HOME", str(tmp_path))
    with pytest.raises(NoDatabase, match=r"or start one with \./pulse up"):
        database_url()
    gone = "postgresql://postgres@/pulse?host=/nowhere&port=5432"
    (tmp_path / "stack.json").write_text(json.dumps({"migration_url": gone}))
    with pytest.raises(NoDatabase):
        database_url()
    (tmp_path / ".s.PGSQL.5432").touch()
    running = f"postgresql://postgres@/pulse?host={quote(str(tmp_path), safe='')}&port=5432"
    (tmp_path / "stack.json").write_text(json.dumps({"migration_url": running}))
    assert database_url() == running
    monkeypatch.setenv("PULSE_DATABASE_URL", "postgresql://services@db/pulse")
    monkeypatch.setenv("PULSE_MIGRATION_URL", "postgresql://deployer@db/pulse")
    added = "?connect_timeout=10"
    assert database_url() == f"postgresql://deployer@db/pulse{added}"
    monkeypatch.delenv("PULSE_MIGRATION_URL")
    assert database_url() == f"postgresql://services@db/pulse{added}"
