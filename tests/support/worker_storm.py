"""Run workers that write metrics and die: python -m tests.support.worker_storm RESTARTS TERM|KILL.

Print one report as JSON.

Worker 0 is killed -9 from outside, in the midst of whatever it does; the others kill themselves between two writes, so
that what they counted must equal what they wrote into a ledger. Every fifth time the parent gets no process to fork. At
last it gets SIGTERM, or kill -9.
"""

import errno
import itertools
import mmap
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.shared.metrics import choose_format
from services.ui_iot.workers.member import Member
from services.ui_iot.workers.merge import Merger
from services.ui_iot.workers.parent import Parent
from services.ui_iot.workers.slots import Slots
from tests.support.wait import until_now

WORKERS = 4
# Sums of quarters are exact in floating point.
AMOUNTS: Final = (0.25, 0.5, 1.0, 16.0)
_FIELDS = ("pid", "begun", "done", "quarters", "collected", "last", "rests")


class Ledger:
    """What each worker did, in memory that outlives it."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, 8 * WORKERS * len(_FIELDS))).cast("q")

    def get(self, worker: int, name: str) -> int:
        """One number of one worker."""
        return self._words[worker * len(_FIELDS) + _FIELDS.index(name)]

    def set(self, worker: int, name: str, value: int) -> None:
        """Replace it."""
        self._words[worker * len(_FIELDS) + _FIELDS.index(name)] = value

    def add(self, worker: int, name: str, value: int = 1) -> None:
        """Add to it."""
        self.set(worker, name, self.get(worker, name) + value)


class Collected(Collector):
    """What is known only when it is asked for: it counts from 0 in each life, and gives a gauge now and then."""

    def __init__(self, worker: int) -> None:
        self._worker = str(worker)
        self.count = 0

    def collect(self) -> Iterator[Metric]:
        """One counter, and sometimes a gauge."""
        counted = CounterMetricFamily("storm_collected", "Counted elsewhere.", labels=["worker"])
        counted.add_metric([self._worker], self.count)
        yield counted
        if self.count % 2:
            yield GaugeMetricFamily("storm_sometimes", "There now and then.", 1)


@dataclass
class Storm:
    """One storm."""

    restarts: int
    ledger: Ledger = field(default_factory=Ledger)
    is_over: "mmap.mmap" = field(default_factory=lambda: mmap.mmap(-1, 8))

    def work(self, member: Member) -> int:
        """A worker's life."""
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
        number, ledger, registry = member.number, self.ledger, member.registry
        counter = Counter("storm_writes_total", "Writes.", ["worker"], registry=registry).labels(number)
        histogram = Histogram("storm_seconds", "Amounts.", ["worker"], buckets=(0.3, 0.7, 2), registry=registry)
        observe = histogram.labels(number).observe
        Gauge("storm_alive", "Workers alive.", registry=registry).set(1)
        Gauge("storm_newest", "Declared as the greatest.", registry=registry, multiprocess_mode="max").set(number)
        Gauge("storm_function", "Known when asked for.", registry=registry).set_function(lambda: 2.0)
        collected = Collected(number)
        registry.register(collected)
        registry.sample()
        member.slots.note_ready(number)
        ledger.set(number, "pid", os.getpid())
        for write in itertools.count():
            if write >= 20 and self.is_over[0]:
                ledger.set(number, "rests", 1)
                while not stopped:
                    signal.sigtimedwait((), 0.01)
                return 0
            if write >= 20 and number:
                os.kill(os.getpid(), signal.SIGKILL)
            amount = random.choice(AMOUNTS)
            ledger.add(number, "begun")
            ident = ledger.get(number, "begun")
            counter.inc()
            observe(amount, {"trace_id": f"{ident:032x}"})
            ledger.set(number, "last", ident)
            ledger.add(number, "quarters", int(amount * 4))
            ledger.add(number, "done")
            if write % 5 == 0:
                before, collected.count = collected.count, write + 1
                registry.sample()
                ledger.add(number, "collected", collected.count - before)
        raise AssertionError("unreachable")

    def run(self, end: signal.Signals) -> dict[str, Any]:
        """Storm until so many workers were started anew; what was seen."""
        parent = Parent(WORKERS, self.work, wait=lambda _failures: 0.0)
        pid = os.fork()
        if pid == 0:
            os.fork = refusing_now_and_then(os.fork)
            os._exit(parent.run())
        watcher = Watcher(parent.slots, pid)
        killed = 0
        while watcher.look() < self.restarts:
            victim = self.ledger.get(0, "pid")
            if victim and watcher.looks % 10 == 0:
                self.ledger.set(0, "pid", 0)
                killed += kill(victim)
        self.is_over[0] = 1
        until_now(lambda: all(self.ledger.get(number, "rests") for number in range(WORKERS)), seconds=60)
        watcher.look()
        report = {"alive": watcher.picture(), "shapes": [*watcher.shapes, watcher.shape()], "killed": killed}
        os.kill(pid, end)
        report["status"] = os.waitpid(pid, 0)[1]
        until_now(lambda: not any(lives(self.ledger.get(number, "pid")) for number in range(WORKERS)))
        watcher.look()
        encode, _ = choose_format("application/openmetrics-text; version=1.0.0")
        return report | {
            "looks": watcher.looks,
            "backwards": watcher.backwards,
            "dead": watcher.picture(),
            "ledger": [{name: self.ledger.get(number, name) for name in _FIELDS} for number in range(WORKERS)],
            "text": encode(_Families(watcher.families)).decode(),
        }


@dataclass
class _Families(Collector):
    families: list[Metric]

    def collect(self) -> list[Metric]:
        return self.families


class Watcher:
    """Scrapes without pause, from outside, and notes what goes backwards and what grows."""

    def __init__(self, slots: Slots, parent: int) -> None:
        self._slots = slots
        self._parent = parent
        self._merger = Merger()
        self._seen: dict[str, float] = {}
        self.families: list[Metric] = []
        self.looks = 0
        self.backwards: list[str] = []
        self.shapes: list[list[int]] = []

    def look(self) -> int:
        """One scrape; how many workers were started anew until then."""
        self.looks += 1
        self.families = self._merger.families(self._slots.copies())
        now = self.picture()
        for name, value in self._seen.items():
            if now.get(name, -1.0) < value:
                self.backwards.append(f"{name}: {value} then {now.get(name)}")
        self._seen |= {name: value for name, value in now.items() if is_counted(name)}
        restarts = int(now.get("pulse_ui_worker_restarts_total", 0))
        if restarts // 10 > len(self.shapes):
            self.shapes.append(self.shape())
        return restarts

    def picture(self) -> dict[str, float]:
        """Every sample."""
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in self.families
            for sample in family.samples
        }

    def shape(self) -> list[int]:
        """What could grow: the parent's file descriptors and mappings, and what the dead have left."""
        process = Path(f"/proc/{self._parent}")
        mapped = sum(1 for line in (process / "maps").read_text().splitlines() if "/dev/zero" in line)
        left = self._slots.retired.copy()
        return [len(list((process / "fd").iterdir())), mapped, len(left.ends), len(left.keys)]


def is_counted(name: str) -> bool:
    """Whether a sample must never become less."""
    return (
        name.startswith("storm_")
        and "_created" not in name
        and name.split(maxsplit=1)[0].endswith(("_total", "_bucket", "_count", "_sum"))
    )


def refusing_now_and_then(fork: Callable[[], int]) -> Callable[[], int]:
    """As where there may be no process more."""
    calls = itertools.count(1)

    def fork_or_fail() -> int:
        if next(calls) % 5 == 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    return fork_or_fail


def kill(pid: int) -> int:
    """Kill -9; how many that were."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def lives(pid: int) -> bool:
    """Whether the process runs; one that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(Storm(int(sys.argv[1])).run(signal.Signals[f"SIG{sys.argv[2]}"])))
