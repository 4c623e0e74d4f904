"""The slots of all processes as one set of families, as if one process had measured everything."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import metrics
from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar

from services.ui_iot.workers.series import Series
from services.ui_iot.workers.slots import Copy, Row, Slot, Slots, unpack_exemplar

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Total:
    """One series over all slots."""

    series: Series
    value: float
    since: float
    exemplar: Exemplar | None


@dataclass(slots=True)
class _Histogram:
    """One label set of a histogram."""

    family: Metric
    buckets: list[tuple[str, _Total]] = field(default_factory=list)
    sum: float = 0.0
    since: float = 0.0


class Merger:
    """Adds slots up; knows the keys that it has seen, for reading one takes longer than adding."""

    def __init__(self) -> None:
        self._series: dict[bytes, Series] = {}

    def families(self, copies: Iterable[Copy]) -> list[Metric]:
        """One family a metric, its samples added up or as Series.combine says; of exemplars the newest."""
        totals: dict[bytes, _Total] = {}
        for copy in copies:
            for row in copy.rows():
                self._add(totals, row)
        families: dict[str, Metric] = {}
        histograms: dict[tuple[str, Labels], _Histogram] = {}
        for total in totals.values():
            series = total.series
            family = families.get(series.family)
            if family is None:
                family = families[series.family] = Metric(series.family, series.help, series.type)
            if series.is_live and series.type == "histogram":
                _collect_histogram(histograms, family, total)
            else:
                family.add_sample(series.name, dict(series.labels), total.value, exemplar=total.exemplar)
                if series.is_live and series.type == "counter":
                    _add_created(family, series.labels, total.since)
        for (_, labels), histogram in histograms.items():
            _add_histogram(histogram, labels)
        return list(families.values())

    def _add(self, totals: dict[bytes, _Total], row: Row) -> None:
        exemplar = unpack_exemplar(row.exemplar)
        total = totals.get(row.key)
        if total is None:
            series = self._series.get(row.key)
            if series is None:
                series = self._series[row.key] = Series.of(row.key)
            totals[row.key] = _Total(series, row.value, row.since, exemplar)
            return
        total.value = total.series.combine(total.value, row.value)
        total.since = min(total.since, row.since)
        total.exemplar = newest(total.exemplar, exemplar)


def newest(one: Exemplar | None, other: Exemplar | None) -> Exemplar | None:
    """The later of two exemplars."""
    if one is None or other is None:
        return one or other
    return one if float(one.timestamp or 0) >= float(other.timestamp or 0) else other


def fold(slots: Slots, number: int) -> None:
    """Add what a dead worker has counted to what the dead have left, and clear its slot. Raises SlotFull."""
    dead, retired = slots[number], slots.retired
    slots.set_answering(number, answers=False)
    copy = dead.copy()
    slots.begin_fold()
    try:
        for row in copy.rows():
            series = Series.of(row.key)
            if series.outlives:
                _fold_row(retired, series, row)
    finally:
        dead.clear()
        slots.end_fold()


def _fold_row(retired: Slot, series: Series, row: Row) -> None:
    index = retired.find(row.key)
    cells = retired.cells
    cells[2 * index] = series.combine(cells[2 * index], row.value)
    cells[2 * index + 1] = min(cells[2 * index + 1], row.since)
    left = unpack_exemplar(retired.read_exemplar(index))
    if row.exemplar and newest(unpack_exemplar(row.exemplar), left) != left:
        retired.write_exemplar(index, row.exemplar)


def _collect_histogram(histograms: dict[tuple[str, Labels], _Histogram], family: Metric, total: _Total) -> None:
    series = total.series
    is_bucket = series.name.endswith("_bucket")
    labels = series.labels[:-1] if is_bucket else series.labels
    histogram = histograms.get((series.family, labels))
    if histogram is None:
        histogram = histograms[series.family, labels] = _Histogram(family)
    if is_bucket:
        histogram.buckets.append((series.labels[-1][1], total))
    else:
        histogram.sum, histogram.since = total.value, total.since


def _add_histogram(histogram: _Histogram, labels: Labels) -> None:
    """Counts are the sum of the buckets, so the two always agree."""
    if not histogram.buckets or histogram.buckets[-1][0] != "+Inf":
        return  # a worker is making it just now
    family, name, count = histogram.family, histogram.family.name, 0.0
    for bound, total in histogram.buckets:
        count += total.value
        family.add_sample(f"{name}_bucket", {**dict(labels), "le": bound}, count, exemplar=total.exemplar)
    family.add_sample(f"{name}_count", dict(labels), count)
    if not histogram.buckets[0][0].startswith("-"):
        family.add_sample(f"{name}_sum", dict(labels), histogram.sum)
    _add_created(family, labels, histogram.since)


def _add_created(family: Metric, labels: Labels, since: float) -> None:
    if getattr(metrics, "_use_created", True):
        family.add_sample(f"{family.name}_created", dict(labels), since)
