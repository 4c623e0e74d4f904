"""Values that prometheus_client's metrics keep in a slot instead of in themselves.

Its metrics ask prometheus_client.values.ValueClass for each number they hold, when they are made. That is how its own
multi-process mode plugs in, which loses exemplars and leaves a file for each process that ever lived.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

from prometheus_client import values
from prometheus_client.samples import Exemplar

from services.ui_iot.workers.series import Series
from services.ui_iot.workers.slots import Slot, pack_exemplar, unpack_exemplar

Gauges = dict[tuple[str, tuple[tuple[str, str], ...]], "GaugeValue"]


class GaugeValue(Protocol):
    """A gauge's value; `written`: by the gauge's own methods, so it has no function that gives its value."""

    written: bool

    def put(self, value: float) -> None:
        """Write what the gauge's function gave."""


def keep_values_in(slot: Slot) -> Gauges:
    """From now on the metrics that this process makes live in the slot; gives its gauges, those to come included."""
    gauges: Gauges = {}

    class SlotValue:
        """A float in shared memory, with the methods of prometheus_client's own."""

        __slots__ = ("_at", "_cells", "_lock", "written")
        _multiprocess = False

        def __init__(
            self,
            typ: str,
            metric_name: str,
            name: str,
            labelnames: Sequence[str],
            labelvalues: Sequence[str],
            help_text: str,
            multiprocess_mode: str = "",
            **_: Any,
        ) -> None:
            labels = tuple(zip(labelnames, labelvalues, strict=True))
            key = Series(
                is_live=True,
                type=typ,
                family=metric_name,
                help=help_text,
                name=name,
                labels=labels,
                mode=multiprocess_mode,
            ).key()
            self._at = 2 * slot.find(key)
            self._cells = slot.cells
            self._lock = Lock()
            self.written = False
            if typ == "gauge":
                gauges[name, labels] = self

        def inc(self, amount: float) -> None:
            with self._lock:
                self._cells[self._at] += amount
            self.written = True

        def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002  # the library's signature
            self.put(value)
            self.written = True

        def put(self, value: float) -> None:
            with self._lock:
                self._cells[self._at] = value

        def get(self) -> float:
            return self._cells[self._at]

        def set_exemplar(self, exemplar: Exemplar) -> None:
            slot.write_exemplar(self._at // 2, pack_exemplar(exemplar))

        def get_exemplar(self) -> Exemplar | None:
            return unpack_exemplar(slot.read_exemplar(self._at // 2))

    values.ValueClass = SlotValue
    return gauges
