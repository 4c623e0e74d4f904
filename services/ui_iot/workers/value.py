"""Values that prometheus_client's metrics keep in a slot instead of in themselves.

Its metrics ask prometheus_client.values.ValueClass for each number they hold, when they are made. That is how its own
multi-process mode plugs in, which loses exemplars and leaves a file for each process that ever lived.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, ClassVar

from prometheus_client import values
from prometheus_client.samples import Exemplar

from services.ui_iot.workers.series import Series
from services.ui_iot.workers.slots import Slot, pack_exemplar, unpack_exemplar

Gauges = dict[tuple[str, tuple[tuple[str, str], ...]], "SlotValue"]


class SlotValue:
    """A float in shared memory, with the methods of the library's own.

    written: by the metric's own methods, so that no function gives its value.
    """

    __slots__ = ("_at", "_cells", "_lock", "written")
    _multiprocess = False
    slot: ClassVar[Slot]
    gauges: ClassVar[Gauges]

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
        series = Series(
            is_live=True,
            type=typ,
            family=metric_name,
            help=help_text,
            name=name,
            labels=labels,
            mode=multiprocess_mode,
        )
        self._at = 2 * self.slot.find(series.key())
        self._cells = self.slot.cells
        self._lock = Lock()
        self.written = False
        if typ == "gauge":
            self.gauges[name, labels] = self

    def inc(self, amount: float) -> None:
        """Add."""
        with self._lock:
            self._cells[self._at] += amount
        self.written = True

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002  # the library's signature
        """Replace."""
        self.put(value)
        self.written = True

    def put(self, value: float) -> None:
        """Replace by what a gauge's function gave."""
        with self._lock:
            self._cells[self._at] = value

    def get(self) -> float:
        """The value."""
        return self._cells[self._at]

    def set_exemplar(self, exemplar: Exemplar) -> None:
        """Replace the exemplar."""
        self.slot.write_exemplar(self._at // 2, pack_exemplar(exemplar))

    def get_exemplar(self) -> Exemplar | None:
        """The newest exemplar."""
        return unpack_exemplar(self.slot.read_exemplar(self._at // 2))


def keep_values_in(slot: Slot) -> Gauges:
    """From now on the metrics that this process makes live in the slot; gives its gauges, those to come included."""
    gauges: Gauges = {}
    values.ValueClass = type("ValueInSlot", (SlotValue,), {"__slots__": (), "slot": slot, "gauges": gauges})
    return gauges
