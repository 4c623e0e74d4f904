"""One process among those behind one port, as its metrics see it, and how it asks the others for fresh values.

Each process reads datagrams from a socket of its own, to which every other may write:

    scraped ── ask(sender, ticket) ─▶ each that answers: sample() into the slot ── done(ticket) ─▶ scraped: merge

Who does not answer in time is shown with what it wrote last. A datagram for one that died is read by its successor.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from services.ui_iot.workers.registry import SharedRegistry
from services.ui_iot.workers.slots import Slots

ANSWER_SECONDS = 0.25
"""Longest that a scrape waits for the other processes; they are busy for longer only when they are in trouble."""
_MESSAGE = struct.Struct("<BBI")
_ASK, _DONE = 0, 1


class Mailboxes:
    """The sockets of all processes, made before they are forked."""

    def __init__(self, size: int) -> None:
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(size)]
        for end in (end for pair in self._pairs for end in pair):
            end.setblocking(False)  # noqa: FBT003  # the standard library's signature

    def reading(self, number: int) -> socket.socket:
        """Where a process reads."""
        return self._pairs[number][0]

    def send(self, number: int, message: bytes) -> bool:
        """Send without waiting; whether it went."""
        with contextlib.suppress(OSError):
            return self._pairs[number][1].send(message) == len(message)
        return False


class Member:
    """The process with one number: a worker, or the parent."""

    def __init__(self, slots: Slots, mailboxes: Mailboxes, number: int) -> None:
        self.number = number
        self.slots = slots
        self.registry = SharedRegistry(slots, number)
        self._mailboxes = mailboxes
        self._mailbox = mailboxes.reading(number)
        self._tickets = count(1)
        self._asked: dict[int, tuple[set[int], asyncio.Event]] = {}

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer the others from the running loop, and let them know; at the end leave fresh values behind."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._mailbox, self.read)
        self.slots.set_answering(self.number, answers=True)
        try:
            yield
        finally:
            self.slots.set_answering(self.number, answers=False)
            loop.remove_reader(self._mailbox)
            self.registry.sample()

    def read(self) -> None:
        """Answer what has arrived."""
        while True:
            try:
                kind, sender, ticket = _MESSAGE.unpack(self._mailbox.recv(_MESSAGE.size))
            except BlockingIOError:
                return
            if kind == _ASK:
                try:
                    self.registry.sample()
                finally:  # a collector that fails must not keep the scrape waiting
                    self._mailboxes.send(sender, _MESSAGE.pack(_DONE, self.number, ticket))
            elif ticket in self._asked:
                waiting, done = self._asked[ticket]
                waiting.discard(sender)
                if not waiting:
                    done.set()

    async def refresh(self) -> None:
        """Return when every process has written what lives outside of its slot, or has not in time."""
        ticket = next(self._tickets) & 0xFFFFFFFF
        message = _MESSAGE.pack(_ASK, self.number, ticket)
        others = [number for number in self.slots.answering() if number != self.number]
        waiting = {number for number in others if self._mailboxes.send(number, message)}
        done = asyncio.Event()
        self._asked[ticket] = waiting, done
        try:
            if waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await done.wait()
        finally:
            del self._asked[ticket]
        self.registry.sample()
