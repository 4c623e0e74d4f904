"""Conversion of a view's rows into a family of samples, or into the reason why the view is left out."""

import math
from collections.abc import Sequence
from typing import TypeAlias, assert_never

from prometheus_client.core import CounterMetricFamily, GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from exporter.shape import LONGEST_LABEL, Kind, ViewRefusal, ViewShape

Row: TypeAlias = Sequence[str | float | None]
Labels: TypeAlias = tuple[str, ...]


class _Invalid(Exception):
    """The rows are no valid family. The message is logged, so it names the broken rule and no value of a label."""


def build_family(shape: ViewShape, rows: Sequence[Row], *, max_rows: int) -> Metric | ViewRefusal:
    """Return the family with samples ordered by labels. Rows without a value are skipped."""
    if len(rows) > max_rows:
        return ViewRefusal(f"it has more than {max_rows} rows")
    count = len(shape.labels)
    try:
        valued = [(_labels(row[:count]), row[count:]) for row in rows if row[-1] is not None]
        valued.sort(key=lambda sample: sample[0])
        match shape.kind:
            case Kind.HISTOGRAM:
                return _histogram(shape, valued)
            case Kind.COUNTER:
                _check_counter(valued)
                return _fill(CounterMetricFamily(shape.name, shape.help, labels=shape.labels), valued)
            case Kind.GAUGE:
                return _fill(GaugeMetricFamily(shape.name, shape.help, labels=shape.labels), valued)
            case _:
                assert_never(shape.kind)
    except _Invalid as invalid:
        return ViewRefusal(str(invalid))


def _labels(cells: Row) -> Labels:
    labels = tuple("" if cell is None else str(cell) for cell in cells)
    if any(len(label) > LONGEST_LABEL for label in labels):
        raise _Invalid(f"a label is longer than {LONGEST_LABEL} characters")
    return labels


def _fill(family: CounterMetricFamily | GaugeMetricFamily, valued: list[tuple[Labels, Row]]) -> Metric:
    previous = None
    for labels, cells in valued:
        if labels == previous:
            raise _Invalid("two rows have the same labels")
        previous = labels
        family.add_metric(labels, _number(cells[-1]))
    return family


def _check_counter(valued: list[tuple[Labels, Row]]) -> None:
    for _, cells in valued:
        value = _number(cells[-1])
        if math.isnan(value) or value < 0:
            raise _Invalid(f"a counter cannot be {value}")


def _histogram(shape: ViewShape, valued: list[tuple[Labels, Row]]) -> Metric:
    family = GaugeHistogramMetricFamily(shape.name, shape.help, labels=shape.labels)
    groups: dict[Labels, list[tuple[float, float, Row]]] = {}
    for labels, cells in valued:
        groups.setdefault(labels, []).append((_boundary(cells[0]), _number(cells[-1]), cells))
    for labels, buckets in groups.items():
        buckets.sort(key=lambda bucket: bucket[0])
        _check_buckets([(boundary, count) for boundary, count, _ in buckets])
        named = dict(zip(shape.labels, labels, strict=True))
        for boundary, count, _ in buckets:
            family.add_sample(f"{shape.name}_bucket", {**named, "le": _canonical(boundary)}, count)
        total = buckets[-1][2][1] if shape.has_sum else None
        if total is not None:
            # The formats require both or neither.
            family.add_sample(f"{shape.name}_gcount", named, buckets[-1][1])
            family.add_sample(f"{shape.name}_gsum", named, _sum(total, least=buckets[0][0]))
    return family


def _boundary(cell: str | float | None) -> float:
    try:
        boundary = float(cell) if cell is not None else math.nan
    except ValueError:
        boundary = math.nan
    if math.isnan(boundary):
        raise _Invalid("an le is no number")
    return boundary


def _canonical(boundary: float) -> str:
    """Return the form that OpenMetrics requires: 1.0, +Inf."""
    return str(floatToGoString(boundary))  # type: ignore[no-untyped-call]


def _check_buckets(buckets: list[tuple[float, float]]) -> None:
    if buckets[-1][0] != math.inf:
        raise _Invalid("a histogram lacks its bucket +Inf")
    last_boundary, last_count = None, 0.0
    for boundary, count in buckets:
        if boundary == last_boundary:
            raise _Invalid(f"a histogram has the bucket {_canonical(boundary)} twice")
        if not count.is_integer():
            raise _Invalid(f"a bucket cannot count {count}")
        if count < last_count:
            raise _Invalid("a histogram's buckets are not cumulative")
        last_boundary, last_count = boundary, count


def _sum(cell: str | float, *, least: float) -> float:
    total = _number(cell)
    if math.isnan(total) or (total < 0 <= least):
        raise _Invalid(f"the sum of a histogram without negative buckets cannot be {total}")
    return total


def _number(cell: str | float | None) -> float:
    assert isinstance(cell, float)  # the query casts numbers to double precision, and NULL is no sample
    return cell
