"""The supervisor restarts dead processes with growing waits and stops all. The processes are real."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from services.local.process import pids
from services.local.process.command import Command
from services.local.process.tether import tethered
from services.local.stack.supervise import WAIT_SECONDS, Child, Spec, Supervisor
from tests.support.wait import until

SLEEPS = "import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
DIES = "raise SystemExit('no database, no work')"


async def is_always_ready(_pid: int) -> bool:
    return True


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """One that waits 10 ms between starts."""
    made = Supervisor(lambda: None, wait=lambda _failures: 0.01)
    yield made
    made.hurry()
    await made.stop([child.spec.name for child in made.children])


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Spec]:
    """A factory for specs of processes that run Python code."""

    def make(
        code: str,
        *,
        name: str = "child",
        is_ready: Callable[[int], Awaitable[bool]] = is_always_ready,
        grace: float = 5.0,
    ) -> Spec:
        async def command() -> Command:
            return Command([sys.executable, "-c", code], {}, cwd=str(tmp_path))

        stop_signals = ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0))
        return Spec(name, None, tmp_path / "log" / f"{name}.log", command, is_ready, stop_signals)

    return make


async def test_a_killed_process_is_started_again(supervisor: Supervisor, spec: Callable[..., Spec]) -> None:
    """It has a new pid, a counted restart and the reason of the last end."""
    child = supervisor.start(spec(SLEEPS))
    first = await until(lambda: child.pid if child.ready else None)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.restarts == 1 and child.ready)
    assert child.pid != first
    assert child.fault == "killed by SIGKILL"
    assert not pids.is_running(first)


async def test_the_waits_grow_with_failures_in_a_row(spec: Callable[..., Spec]) -> None:
    """Each wait depends on the number of consecutive failures."""
    asked: list[tuple[int, str | None]] = []

    def wait(failures: int) -> float:
        asked.append((failures, child.fault))
        return 0.0

    supervisor = Supervisor(lambda: None, wait=wait)
    child = supervisor.start(spec(DIES))
    await until(lambda: child.restarts >= 3)
    await supervisor.stop(["child"])
    assert asked[:3] == [(1, "exit 1"), (2, "exit 1"), (3, "exit 1")]


async def test_a_stable_run_makes_the_next_wait_short(
    spec: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ran for long counts as new."""
    monkeypatch.setattr("services.local.stack.supervise.STABLE_SECONDS", 0.0)
    asked: list[int] = []

    def wait(failures: int) -> float:
        asked.append(failures)
        return 0.0

    supervisor = Supervisor(lambda: None, wait=wait)
    child = supervisor.start(spec(DIES))
    await until(lambda: child.restarts >= 3)
    await supervisor.stop(["child"])
    assert set(asked) == {1}


def test_waits_double_to_a_limit_and_are_never_the_same_for_two() -> None:
    """Jitter keeps processes that died together from starting together."""
    shortest = [min(WAIT_SECONDS(failures) for _ in range(200)) for failures in range(1, 12)]
    longest = [max(WAIT_SECONDS(failures) for _ in range(200)) for failures in range(1, 12)]
    assert all(later >= earlier * 0.9 for earlier, later in pairwise(longest))
    assert 0.1 <= shortest[0] < longest[0] <= 0.2
    assert 5.0 <= shortest[-1] < longest[-1] <= 10.0
    assert WAIT_SECONDS(10_000) <= 10.0


async def test_a_program_that_is_not_there_is_a_fault_not_a_crash(
    supervisor: Supervisor, spec: Callable[..., Spec]
) -> None:
    """It is retried, because the file may appear later."""
    missing = spec(SLEEPS)

    async def command() -> Command:
        return Command(["/no/such/program"], {})

    child = supervisor.start(Spec("child", None, missing.log, command, is_always_ready))
    await until(lambda: child.restarts >= 2)
    assert "No such file" in str(child.fault)
    assert child.pid is None


async def test_stop_asks_first_and_then_insists(supervisor: Supervisor, spec: Callable[..., Spec]) -> None:
    """SIGTERM ends a normal process at once. One that ignores it is killed later, without delaying others."""
    good = supervisor.start(spec(SLEEPS, name="good"))
    deaf_spec = spec(STUBBORN, name="deaf", grace=0.2)
    deaf = supervisor.start(deaf_spec)
    await until(lambda: good.ready and deaf_spec.log.exists() and b"deaf" in deaf_spec.log.read_bytes())
    running = [child.pid for child in (good, deaf) if child.pid]
    await supervisor.stop(["good", "deaf", "never started"])
    assert good.fault == "killed by SIGTERM"
    assert deaf.fault == "killed by SIGKILL"
    assert not any(pids.is_running(pid) for pid in running)


async def test_a_second_signal_cuts_the_waiting_short(supervisor: Supervisor, spec: Callable[..., Spec]) -> None:
    """The next signal is sent without the remaining grace period."""
    deaf_spec = spec(STUBBORN, grace=60.0)
    child = supervisor.start(deaf_spec)
    await until(lambda: deaf_spec.log.exists() and b"deaf" in deaf_spec.log.read_bytes())
    stopping = asyncio.create_task(supervisor.stop(["child"]))
    await until(child.stopping.is_set)
    supervisor.hurry()
    async with asyncio.timeout(10):
        await stopping
    assert child.fault == "killed by SIGKILL"


async def test_nothing_is_started_after_stop(supervisor: Supervisor, spec: Callable[..., Spec]) -> None:
    """This includes a stop while the supervisor waits for the next start."""
    patient = Supervisor(lambda: None, wait=lambda _failures: 3600.0)
    child = patient.start(spec(DIES))
    await until(lambda: child.fault)
    async with asyncio.timeout(10):
        await patient.stop(["child"])
    assert (child.pid, child.restarts) == (None, 0)


async def test_ready_follows_the_probe(supervisor: Supervisor, spec: Callable[..., Spec], tmp_path: Path) -> None:
    """A running process without an answer is shown as not ready."""
    flag = tmp_path / "flag"

    async def is_ready(_pid: int) -> bool:
        return flag.exists()

    child = supervisor.start(spec(SLEEPS, is_ready=is_ready))
    await until(lambda: child.pid)
    assert not child.ready
    flag.touch()
    await until(lambda: child.ready)
    flag.unlink()
    await until(lambda: not child.ready)
    assert child.was_ready
    assert child.restarts == 0


async def test_output_goes_to_the_log_of_the_process(supervisor: Supervisor, spec: Callable[..., Spec]) -> None:
    """One file has both streams of all runs."""
    chosen = spec("import sys; print('out', flush=True); sys.exit('err')")
    child = supervisor.start(chosen)
    await until(lambda: child.restarts >= 1 and chosen.log.read_text().count("out") >= 2)
    assert "err" in chosen.log.read_text()


async def test_every_change_is_reported(spec: Callable[..., Spec]) -> None:
    """The status table is updated without polling."""
    seen: list[tuple[int | None, bool]] = []
    children: list[Child] = []
    supervisor = Supervisor(lambda: seen.extend((child.pid, child.ready) for child in children))
    children.append(supervisor.start(spec(SLEEPS)))
    await until(lambda: children[0].ready)
    pid = children[0].pid
    await supervisor.stop(["child"])
    assert seen == [(pid, False), (pid, True), (None, False)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process of its parent's death")
async def test_children_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    """No process survives kill -9, and the pid stays that of the real program."""
    code = (
        "import subprocess, sys; from services.local.process.tether import tethered\n"
        f"child = subprocess.Popen(tethered([sys.executable, '-c', {SLEEPS!r}]))\n"
        "print(child.pid, flush=True); child.wait()"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())

    def is_itself() -> bool:
        words = pids.command_line(pid)  # empty for a moment, between the two programs
        return words[-1:] == [SLEEPS] and "prctl" not in " ".join(words)

    await until(is_itself)
    parent.kill()
    await parent.wait()
    await until(lambda: not pids.is_running(pid))


def test_a_tether_needs_an_interpreter_that_the_child_may_run() -> None:
    """Otherwise the command runs without one."""
    assert tethered(["/bin/true"], can_run=lambda _argv: False) == ["/bin/true"]
