"""The parent of several workers on one port: forks them, forks anew what dies, adds up what the dead have counted.

fork ─▶ running ── exit ─▶ fold its slot ─▶ wait (0.2 s doubling to 10 s, until a run was long) ─▶ fork
               └─ exit by itself before all were ready once: it cannot start, so all end with its status

It has one thread and no event loop, so that a fork copies nothing half done. The sockets, the slots and the mailboxes
are made before the first fork and inherited; a worker that is started anew costs no file, socket or memory. Each worker
reads from a pipe that only the parent could write to: its end is the parent's death, and the worker's own.
"""

import contextlib
import logging
import os
import random
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from prometheus_client import Counter
from prometheus_client.process_collector import ProcessCollector

from services.ui_iot.workers.member import Mailboxes, Member
from services.ui_iot.workers.merge import fold
from services.ui_iot.workers.slots import SlotFull, Slots

log = logging.getLogger(__name__)

Work = Callable[[Member], int]
"""What a worker does, as its whole life; gives its exit status."""

LONGEST_WAIT_SECONDS = 10.0
LONG_RUN_SECONDS = 10.0
STOP_SECONDS = 9.0
"""A stop may take 10 s in all."""
ORPHAN_SECONDS = 3.0
"""Longest that a worker outlives its parent: a stack that had to kill the parent is not done within that."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def wait_seconds(failures: int) -> float:
    """Seconds before a worker is started anew after so many short runs: 0.2 doubling to 10, each half to whole."""
    return min(LONGEST_WAIT_SECONDS, 0.1 * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class _Worker:
    number: int
    pid: int | None = None
    started: float = 0.0
    start_at: float = 0.0
    failures: int = 0


class Parent:
    """Runs workers until SIGTERM or SIGINT. sockets: what they listen on, closed here when they are to stop."""

    def __init__(
        self,
        count: int,
        work: Work,
        *,
        sockets: Sequence[socket.socket] = (),
        wait: Callable[[int], float] = wait_seconds,
    ) -> None:
        self.slots = Slots(count)
        self._work = work
        self._sockets = sockets
        self._wait = wait
        self._mailboxes = Mailboxes(count + 1)
        self._workers = [_Worker(number) for number in range(count)]
        self._status = 0
        self._stop_at: float | None = None
        self._told = False

    def run(self) -> int:
        """Return when all workers have ended; the exit status."""
        self._member = Member(self.slots, self._mailboxes, self.slots.parent)
        ProcessCollector(registry=self._member.registry)
        self._restarts = Counter(
            "pulse_ui_worker_restarts_total", "Workers that were started anew.", registry=self._member.registry
        )
        self._lifeline, self._life = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)  # noqa: FBT003  # the standard library's signature
        for number in _SIGNALS:
            signal.signal(number, self._note_signal)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        self._selector.register(self._mailboxes.reading(self.slots.parent), selectors.EVENT_READ, self._member.read)
        self.slots.set_answering(self.slots.parent, answers=True)
        log.info("started", extra={"workers": len(self._workers)})
        while self._step():
            pass
        log.info("stopped")
        return self._status

    def _step(self) -> bool:
        """Do what is due and wait for what comes; False when nothing is left to do."""
        self._reap()
        now = time.monotonic()
        if self._stop_at is not None:
            self._press_stop(self._stop_at, now)
            if all(worker.pid is None for worker in self._workers):
                return False
            due = [self._stop_at]
        else:
            due = []
            for worker in self._workers:
                if worker.pid is None and worker.start_at <= now:
                    self._start(worker)
                if worker.pid is None:
                    due.append(worker.start_at)
        for ready, _ in self._selector.select(max(0.01, min(due) - now) if due else None):
            ready.data()
        return True

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stop()

    def _stop(self) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + STOP_SECONDS
            for listening in self._sockets:
                listening.close()  # or clients would wait in a queue that nobody empties

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(256):
                pass

    def _press_stop(self, until: float, now: float) -> None:
        """Ask the workers to end, once; at last make them."""
        if self._told and now < until:
            return
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGTERM if now < until else signal.SIGKILL)
        self._told = True

    def _start(self, worker: _Worker) -> None:
        # A signal between the fork and the child's own handlers would be taken by ours, there in vain.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if self._stop_at is None:
            worker.pid = self._fork(worker)
            if worker.pid == 0:
                self._be_worker(worker.number)
            worker.started = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _fork(self, worker: _Worker) -> int | None:
        try:
            return os.fork()
        except OSError as error:
            # No memory, or no process more for now: the workers that run know nothing of it, and must not end with us.
            self._start_later(worker)
            log.error(  # noqa: TRY400  # for an operator, who needs no traceback
                "a worker cannot be started now: %s", error.strerror, extra={"worker": worker.number}
            )
            return None

    def _start_later(self, worker: _Worker) -> None:
        worker.failures += 1
        worker.start_at = time.monotonic() + self._wait(worker.failures)

    def _be_worker(self, number: int) -> NoReturn:
        """A worker's life, from the fork to its exit."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._life)
            self._selector.close()
            threading.Thread(target=_die_with_parent, args=(self._lifeline,), daemon=True, name="lifeline").start()
            status = self._work(Member(self.slots, self._mailboxes, number))
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            log.exception("a worker failed")
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.pid is None:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._bury(worker, os.waitstatus_to_exitcode(status))

    def _bury(self, worker: _Worker, code: int) -> None:
        worker.pid = None
        try:
            fold(self.slots, worker.number)
        except SlotFull:
            log.exception("what a worker counted is lost", extra={"worker": worker.number})
        if self._stop_at is not None:
            return
        if code >= 0 and self.slots.fault() is not None:
            self._status = code or 1
            self._stop()
            return
        if time.monotonic() - worker.started >= LONG_RUN_SECONDS:
            worker.failures = 0
        self._start_later(worker)
        self._restarts.inc()
        log.error("a worker ended", extra={"worker": worker.number, "exit_code": code, "failures": worker.failures})


def _die_with_parent(lifeline: int) -> None:
    """Stop this process when the parent is gone, and end it if it does not stop."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
