"""A registry that collects what all processes have counted.

Counters, histograms and gauges live in the slot and are always fresh. What is known only when it is asked for (a
gauge's function, a collector that reads something) is written into the slot by sample(), at each scrape.
"""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from services.ui_iot.workers.merge import Merger
from services.ui_iot.workers.series import Series
from services.ui_iot.workers.slots import Slots
from services.ui_iot.workers.value import keep_values_in


class SharedRegistry(CollectorRegistry):
    """The metrics of one process, number `number`, which collects those of all.

    From the making of it on every metric that this process makes lives in its slot.
    """

    def __init__(self, slots: Slots, number: int) -> None:
        super().__init__()
        self._slots = slots
        self._slot = slots[number]
        self._gauges = keep_values_in(self._slot)
        self._merger = Merger()
        self._asked: list[Collector] = []
        self._sampled: dict[bytes, int] = {}

    def register(self, collector: Collector) -> None:
        """Take a collector in."""
        super().register(collector)
        if not isinstance(collector, Counter | Histogram | Summary):
            self._asked.append(collector)

    def unregister(self, collector: Collector) -> None:
        """Let a collector go; what it counted stays."""
        super().unregister(collector)
        if collector in self._asked:
            self._asked.remove(collector)

    def collect(self) -> Iterable[Metric]:
        """Families of all processes, fresh as far as they were asked to sample."""
        return self._merger.families(self._slots.copies())

    def sample(self) -> None:
        """Write into the slot what does not live there; what is not given any more is taken out."""
        cells, seen = self._slot.cells, {}
        for collector in self._asked:
            for family in collector.collect():
                for sample in family.samples:
                    if not self._put_gauge(sample):
                        key = _key(family, sample)
                        seen[key] = index = self._slot.find(key)
                        cells[2 * index] = sample.value
        for key in seen.keys() - self._sampled.keys():
            cells[2 * seen[key] + 1] = time.time()
        for key in self._sampled.keys() - seen.keys():
            if not Series.of(key).outlives:
                cells[2 * self._sampled[key] + 1] = 0.0
        self._sampled = seen

    def _put_gauge(self, sample: Sample) -> bool:
        """Whether the sample is a gauge's, which has a place already; written there if it comes from a function."""
        gauge = self._gauges.get((sample.name, tuple(sample.labels.items())))
        if gauge is None:
            return False
        if not gauge.written:
            gauge.put(sample.value)
        return True


def _key(family: Metric, sample: Sample) -> bytes:
    labels = tuple(sample.labels.items())
    return Series(
        is_live=False,
        type=family.type,
        family=family.name,
        help=family.documentation,
        name=sample.name,
        labels=labels,
    ).key()
