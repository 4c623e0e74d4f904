"""Supervisor: starts processes, checks their readiness, restarts them when they end, and stops them in order.

start ─▶ running ─▶ ready
           │          │
           └── exit ──┘──▶ wait (longer each time, until a run was stable) ─▶ start
"""

import asyncio
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from services.cli.errors import CommandFailed
from services.local.process.command import Command
from services.local.process.log_files import open_log
from services.shared.backoff import backoff_seconds

WAIT_SECONDS = partial(backoff_seconds, longest_seconds=10.0)
"""Pause before the next start, by the number of short runs in a row."""
STABLE_SECONDS = 10.0
"""Length of a run after which the next pause is short again."""
PROBE_SECONDS = 0.1
READY_PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Spec:
    """Process to keep running. `command` is called before each start. `port` may be None."""

    name: str
    port: int | None
    log: Path
    command: Callable[[], Awaitable[Command]]
    is_ready: Callable[[int], Awaitable[bool]]
    stop_signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 6.0), (signal.SIGKILL, 1.0))
    """Signals that stop the process, in order, each with the seconds to wait for its end."""


@dataclass(slots=True)
class Child:
    """Present state of a kept process."""

    spec: Spec
    pid: int | None = None
    ready: bool = False
    was_ready: bool = False
    restarts: int = 0
    fault: str | None = None
    """Reason why it is not running, or why its last run ended."""
    ran: bool = False
    """fault is the end of a run, so the log may have details."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Starts and stops processes, in one event loop. `on_change` is called after each change of a child."""

    def __init__(self, on_change: Callable[[], None], *, wait: Callable[[int], float] = WAIT_SECONDS) -> None:
        self.children: list[Child] = []
        self._on_change = on_change
        self._wait = wait
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, spec: Spec) -> Child:
        """Keep a process running from now on."""
        child = Child(spec)
        self.children.append(child)
        self._tasks[spec.name] = asyncio.create_task(self._keep_running(child), name=f"keep-{spec.name}")
        return child

    async def stop(self, names: Iterable[str]) -> None:
        """Stop these processes at the same time and wait until they have ended. Unknown names are ignored."""
        tasks = [self._tasks.pop(name) for name in list(names) if name in self._tasks]
        for child in self.children:
            if child.spec.name not in self._tasks:
                child.stopping.set()
        await asyncio.gather(*tasks)

    def hurry(self) -> None:
        """End the waiting of every stop at once."""
        for child in self.children:
            child.hurry.set()

    async def _keep_running(self, child: Child) -> None:
        failures = 0
        while not child.stopping.is_set():
            started = time.monotonic()
            try:
                child.fault, child.ran = await self._run(child), True
            except (OSError, CommandFailed) as error:
                child.fault, child.ran = str(error), False
            if child.stopping.is_set():
                break
            failures = 1 if time.monotonic() - started >= STABLE_SECONDS else failures + 1
            self._changed(child, pid=None, ready=False)
            if await _is_set_within(child.stopping, self._wait(failures)):
                break
            child.restarts += 1
        self._changed(child, pid=None, ready=False)

    async def _run(self, child: Child) -> str:
        """Run the process once and return how it ended."""
        command = await child.spec.command()
        with open_log(child.spec.log) as log:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                cwd=command.cwd,
                env=command.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **command.options,
            )
        self._changed(child, pid=process.pid, ready=False)
        probing = asyncio.create_task(self._probe(child, process.pid))
        ending = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(child.stopping.wait())
        try:
            await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                await _stop(child, process)
            return _describe(await ending)
        finally:
            probing.cancel()
            stopping.cancel()

    async def _probe(self, child: Child, pid: int) -> None:
        while True:
            ready = await child.spec.is_ready(pid)
            if ready != child.ready:
                child.was_ready = child.was_ready or ready
                self._changed(child, pid=pid, ready=ready)
            await asyncio.sleep(READY_PROBE_SECONDS if ready else PROBE_SECONDS)

    def _changed(self, child: Child, *, pid: int | None, ready: bool) -> None:
        child.pid, child.ready = pid, ready
        self._on_change()


async def _stop(child: Child, process: asyncio.subprocess.Process) -> None:
    for number, seconds in child.spec.stop_signals:
        if process.returncode is not None:
            return
        process.send_signal(number)
        ending = asyncio.create_task(process.wait())
        hurry = asyncio.create_task(child.hurry.wait())
        await asyncio.wait((ending, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        ending.cancel()


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
