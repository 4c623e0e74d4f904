"""Injection of the faults of a schedule, and their end."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final

import asyncpg
import psutil

from services.cli.database import role_names
from services.cli.errors import CommandFailed
from services.local.process import pids
from tests.chaos.cuts import Order
from tests.chaos.faults import Fault, Kind
from tests.chaos.judgement import BrokenPromise, Window
from tests.chaos.proxy import Side
from tests.chaos.stack import API, POSTGRES, SEALERS, ChaosStack

log = logging.getLogger(__name__)

# A fault is left out if it has no victim by then, because an earlier one is still active.
PATIENCE_SECONDS = 8.0
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class NothingToHit(Exception):
    """The fault has no victim now."""


class Injector:
    """Injector of each kind of fault. done, left_out: numbers by kind; blocked: periods with a full disk."""

    def __init__(self, stack: ChaosStack, note: Callable[[Fault, str], None]) -> None:
        self.done: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.blocked: list[Window] = []
        self.broken: list[BrokenPromise] = []
        self._stack = stack
        self._note = note
        self._network, self._disk, self._server = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._makers: Final[dict[Kind, Callable[[Fault], Awaitable[str]]]] = {
            "kill_api": self._kill_api,
            "kill_sealer": self._kill_sealer,
            "pause_sealer": self._pause_sealer,
            "kill_backend": self._kill_backend,
            "terminate_backend": self._terminate_backend,
            "kill_postmaster": self._kill_postmaster,
            "database_outage": self._database_outage,
            "cut_commit": self._cut,
            "cut_message": self._cut,
            "stall_both_ways": lambda fault: self._stall(fault, "client", "server"),
            "stall_answers": lambda fault: self._stall(fault, "server"),
            "fill_disk": self._fill_disk,
            "fill_disk_and_stall": self._fill_disk,
        }

    async def run(self, schedule: Sequence[Fault]) -> None:
        """Run all faults at their times, several at once if they overlap. Return when the last one is undone."""
        started = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for fault in schedule:
                await asyncio.sleep(started + fault.at_seconds - asyncio.get_running_loop().time())
                tasks.create_task(self._make(fault))

    async def _make(self, fault: Fault) -> None:
        try:
            outcome = await self._makers[fault.kind](fault)
        except (NothingToHit, *AWAY) as reason:
            self.left_out[fault.kind] += 1
            self._note(fault, f"left out: {reason or type(reason).__name__}")
            return
        except CommandFailed as reason:
            self.broken.append(BrokenPromise("the stack did not come back", f"after fault {fault.number}: {reason}"))
            return
        self.done[fault.kind] += 1
        self._note(fault, outcome)

    async def _kill_api(self, _fault: Fault) -> str:
        return _kill(await self._stack.running_pid(API))

    async def _kill_sealer(self, fault: Fault) -> str:
        return _kill(await self._stack.running_pid(await self._sealer(fault)))

    async def _pause_sealer(self, fault: Fault) -> str:
        pid = await self._stack.running_pid(await self._sealer(fault))
        process = psutil.Process(pid)
        process.suspend()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        return f"process {pid} for {fault.seconds} s"

    async def _sealer(self, fault: Fault) -> str:
        """Return the sealer that holds the lease, or any if it is unknown."""
        with contextlib.suppress(*AWAY):
            async with self._connection() as connection:
                holder = await connection.fetchval("select holder from audit.sealer") or ""
            for name in SEALERS:
                if holder.endswith(f":{self._stack.children[name].pid}"):
                    return name
        return SEALERS[fault.pick % len(SEALERS)]

    async def _kill_backend(self, fault: Fault) -> str:
        async with self._server:
            return _kill(await self._backend(fault))

    async def _terminate_backend(self, fault: Fault) -> str:
        async with self._server:
            async with self._connection(patience_seconds=PATIENCE_SECONDS) as connection:
                pid = await self._backend(fault)
                await connection.execute("select pg_terminate_backend($1)", pid)
            return f"process {pid}"

    async def _backend(self, fault: Fault) -> int:
        """Return a server process that works for one of ours."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            postmaster = self._stack.children[POSTGRES].pid
            if found := sorted(_backends(postmaster)) if postmaster else []:
                return found[fault.pick % len(found)]
            await asyncio.sleep(0.05)
        raise NothingToHit("no connection to end")

    async def _kill_postmaster(self, _fault: Fault) -> str:
        async with self._server:
            killed = _kill(await self._stack.running_pid(POSTGRES))
            await self._stack.until_ready(POSTGRES)
            return killed

    async def _database_outage(self, fault: Fault) -> str:
        async with self._server:
            self._stack.may_start_server.clear()
            try:
                killed = _kill(await self._stack.running_pid(POSTGRES))
                await asyncio.sleep(fault.seconds)
            finally:
                self._stack.may_start_server.set()
            await self._stack.until_ready(POSTGRES)
            return f"{killed}, started again after {fault.seconds} s"

    async def _cut(self, fault: Fault) -> str:
        only_commits = fault.kind == "cut_commit"
        order = Order(fault.cut, fault.sender, only_commits=only_commits, skip=fault.skip)
        if not await self._stack.cuts.make(order, seconds=PATIENCE_SECONDS):
            raise NothingToHit("no message to cut at")
        return f"{fault.cut} a {'commit' if only_commits else f'message of the {fault.sender}'}"

    async def _stall(self, fault: Fault, *senders: Side) -> str:
        async with self._network:
            self._stack.proxy.stall(*senders)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                self._stack.proxy.resume()
        return f"for {fault.seconds} s"

    async def _fill_disk(self, fault: Fault) -> str:
        """Fill the spool's disk. Without the database nothing can be kept then; a small limit is reached only so."""
        disk = self._stack.disk
        is_away = fault.kind == "fill_disk_and_stall" or not disk.can_fill
        async with self._disk:
            started = time.time()
            if disk.can_fill:
                # With a little room, some batches fit and of others only the beginning.
                disk.fill(spare_pages=fault.pick % 2)
            try:
                await (self._stall(fault, "client", "server") if is_away else asyncio.sleep(fault.seconds))
            finally:
                disk.empty()
                self.blocked.append(Window(started, time.time()))
        return f"for {fault.seconds} s"

    @contextlib.asynccontextmanager
    async def _connection(self, *, patience_seconds: float = 0.0) -> AsyncIterator[asyncpg.Connection]:
        connection = await self._connect(patience_seconds)
        try:
            yield connection
        finally:
            await connection.close(timeout=1)

    async def _connect(self, patience_seconds: float) -> asyncpg.Connection:
        deadline = asyncio.get_running_loop().time() + patience_seconds
        while True:
            try:
                return await self._stack.connect()
            except AWAY:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)


def _kill(pid: int) -> str:
    os.kill(pid, signal.SIGKILL)
    return f"process {pid}"


def _backends(postmaster: int) -> Iterator[int]:
    """Yield the pids of backends that serve the services, by their process titles."""
    names = role_names()
    titles = tuple(f"postgres: {names[suffix]} " for suffix in ("app", "ops"))
    try:
        children = psutil.Process(postmaster).children()
    except psutil.NoSuchProcess:
        return
    yield from (child.pid for child in children if " ".join(pids.command_line(child.pid)).startswith(titles))
