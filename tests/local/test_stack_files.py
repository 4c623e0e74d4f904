"""Files of the stack (locks, state, secrets, logs) and the ports that it needs."""

import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.cli.lock import AlreadyHeldError, hold, holder
from services.cli.state_file import NotRunningError, ProcessState, StackState, read_state, running_state, write_state
from services.local.process import pids
from services.local.process.log_files import last_message, trim
from services.local.stack.obstacles import check_free, stop_leftovers
from services.shared.write_once import replace, write_once

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from services.cli.lock import hold
handle = hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    """A killed process leaves no stale lock."""
    file = tmp_path / "deep" / "lock"
    assert holder(file) is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(AlreadyHeldError) as caught:
            hold(file)
        assert (caught.value.pid, holder(file)) == (process.pid, process.pid)
        process.kill()
        process.communicate()
    assert holder(file) is None
    with hold(file):
        assert holder(file) == os.getpid()


def test_the_state_counts_only_while_its_stack_lives(tmp_path: Path) -> None:
    """The state file of a killed stack is ignored, including while the next one starts."""
    home = Home(tmp_path)
    with pytest.raises(NotRunningError, match=r"start it with \./pulse up"):
        running_state(home)
    processes = [ProcessState("ui_iot", 7, 8081, ready=True, restarts=0, module="services.ui_iot")]
    with hold(home.lock):
        write_state(home, StackState(os.getpid(), 8080, processes))
        assert running_state(home).processes == processes
        home.state.write_bytes(home.state.read_bytes().replace(str(os.getpid()).encode(), b"1"))
        with pytest.raises(NotRunningError):
            running_state(home)
        home.state.write_text("{")
        with pytest.raises(NotRunningError):
            running_state(home)
    write_state(home, StackState(os.getpid(), 8080, processes))
    with pytest.raises(NotRunningError):
        running_state(home)


def test_processes_of_a_killed_stack_are_stopped_and_strangers_are_not(tmp_path: Path) -> None:
    """The command line must match as well as the pid."""
    home = Home(tmp_path)
    pause = "import signal; signal.pause()"
    # The module's name is an argument, as in the stack's command lines.
    left = subprocess.Popen([sys.executable, "-c", pause, "services.dispatcher"])
    stranger = subprocess.Popen([sys.executable, "-c", pause])
    try:
        states = [
            ProcessState("dispatcher", left.pid, 8083, ready=True, restarts=0, module="services.dispatcher"),
            ProcessState("exporter", stranger.pid, 8086, ready=True, restarts=0, module="exporter"),
            ProcessState("postgres", stranger.pid, None, ready=True, restarts=0),
        ]
        write_state(home, StackState(os.getpid(), 8080, states))
        stop_leftovers(home)
        assert not pids.is_running(left.pid)
        assert pids.is_running(stranger.pid)
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_no_state_means_nothing_to_stop(tmp_path: Path) -> None:
    """The first start finds no state."""
    assert read_state(Home(tmp_path)) is None
    stop_leftovers(Home(tmp_path))


def test_a_secret_is_made_once_however_many_ask(tmp_path: Path) -> None:
    """All callers get the same secret, which only the user can read."""
    file = tmp_path / "keys" / "secret"
    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(lambda number: write_once(file, str(number).encode()), range(64)))
    assert got == {file.read_bytes()}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    replace(file, b"new")
    assert file.read_bytes() == b"new"
    assert [path.name for path in file.parent.iterdir()] == ["secret"]


def test_a_log_is_cut_in_generations_and_its_writer_goes_on(tmp_path: Path) -> None:
    """At most four files are kept, and an appending writer keeps its handle."""
    log = tmp_path / "ui_iot.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(6):
            writer.write(f"line {number}\n".encode())
            trim(log, largest_bytes=5)
        writer.write(b"last\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ui_iot.log",
        "ui_iot.log.1",
        "ui_iot.log.2",
        "ui_iot.log.3",
    ]
    assert log.read_text() == "last\n"
    assert log.with_name("ui_iot.log.1").read_text() == "line 5\n"
    assert log.with_name("ui_iot.log.3").read_text() == "line 3\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"message": "started"}\n{"message": "no database"}\n', "no database"),
        ("Traceback\nValueError: no\n\n", "ValueError: no"),
        ("[1, 2]\n", "[1, 2]"),
        ("", ""),
    ],
)
def test_the_last_words_of_a_process(tmp_path: Path, text: str, message: str) -> None:
    """The result is the message of a JSON line, or any other line whole."""
    log = tmp_path / "log"
    log.write_text(text)
    assert last_message(log) == message
    assert last_message(tmp_path / "no log") == ""


def test_a_taken_port_is_named_with_its_holder() -> None:
    """The error names the process to stop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        expected = rf"port {port} for ui_iot is taken by process {os.getpid()} .*--port-base"
        with pytest.raises(CommandFailed, match=expected):
            check_free({"ui_iot": port}, host="127.0.0.1")
    check_free({"ui_iot": port}, host="127.0.0.1")


def test_an_address_that_is_not_ours_is_refused() -> None:
    """PULSE_HOST may name an address of another machine."""
    with pytest.raises(CommandFailed, match=r"cannot be used on 192\.0\.2\.1: EADDRNOTAVAIL"):
        check_free({"ui_iot": 8081}, host="192.0.2.1")
