"""Faults of the views of schema metrics, found in the readings of several passes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from exporter.exposition import family_of
from exporter.shape import Kind, ViewRefusal, ViewShape
from exporter.snapshot import ViewReading

Level = Literal["error", "warning"]

QUERY_CANCELED = "57014"
# The suffix that a type calls for, and units that are not base units of Prometheus. Days and months are missing: they
# belong to the calendar and are no lengths of time.
_SUFFIXES = {"interval": "_seconds", "timestamptz": "_timestamp_seconds"}
_ODD_UNIT = re.compile(
    r"_(ms|millis|milliseconds|us|microseconds|minutes|hours|kb|mb|gb|kib|mib|gib|kilobytes|megabytes|percent|pct)"
    r"(_total)?$"
)
_TAKEN_SUFFIX = re.compile(r"_(count|sum|bucket|info|created)$")
# Labels that Prometheus adds to every series. It would rename ours to exported_….
_TARGET_LABELS = frozenset({"job", "instance"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a view's cost: milliseconds of its query, number of series, labels of each series."""

    milliseconds: float
    series: int
    labels: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. An error is a view that is not served or too expensive, a warning a broken convention."""

    view: str
    level: Level
    rule: str
    message: str


def lint(passes: Sequence[Sequence[ViewReading]], *, bounds: Bounds, max_rows: int) -> list[Finding]:
    """Return all findings, by name of view. passes: the readings of each pass."""
    by_view: dict[str, list[ViewReading]] = {}
    for reading in (reading for readings in passes for reading in readings):
        by_view.setdefault(reading.view.name, []).append(reading)
    return [
        Finding(name, level, rule, message)
        for name, readings in sorted(by_view.items())
        for level, rule, message in _findings(readings, bounds, max_rows)
    ]


_Faults = Iterator[tuple[Level, str, str]]


def _findings(readings: Sequence[ViewReading], bounds: Bounds, max_rows: int) -> _Faults:
    last = readings[-1]
    if not last.view.comment.strip():
        yield "error", "comment", "it has no comment, which is the help text"
    if isinstance(last.shape, ViewRefusal):
        yield "error", "unsafe", last.shape.reason
        return
    yield from _conventions(last.shape, last)
    if len(last.shape.labels) > bounds.labels:
        yield "error", "wide", f"it has {len(last.shape.labels)} labels, more than {bounds.labels}"
    yield from _rows(readings, bounds, max_rows)


def _rows(readings: Sequence[ViewReading], bounds: Bounds, max_rows: int) -> _Faults:
    """Yield the faults of the rows. The fastest pass counts: others met a cold cache or a busy machine."""
    fastest = min(reading.seconds or 0.0 for reading in readings) * 1000
    for reading in readings:
        family = family_of(reading, max_rows=max_rows)
        if isinstance(reading.rows, ViewRefusal) and reading.rows.reason.startswith(QUERY_CANCELED):
            yield "error", "slow", f"its query was stopped after {fastest:.0f} ms"
            return
        if isinstance(family, ViewRefusal):
            wide = not isinstance(reading.rows, ViewRefusal) and len(reading.rows) > max_rows
            yield "error", "wide" if wide else "failing", family.reason
            return
    if fastest > bounds.milliseconds:
        yield "error", "slow", f"its query takes {fastest:.0f} ms, more than {bounds.milliseconds:.0f}"
    rows = max(len(reading.rows) for reading in readings if not isinstance(reading.rows, ViewRefusal))
    if rows > bounds.series:
        yield "error", "wide", f"it has {rows} rows, more than {bounds.series}"
    yield from _falling(readings, max_rows)
    yield from _nulls(readings[-1])


def _falling(readings: Sequence[ViewReading], max_rows: int) -> _Faults:
    shape = readings[0].shape
    if not isinstance(shape, ViewShape) or shape.kind is not Kind.COUNTER:
        return
    seen: dict[frozenset[tuple[str, str]], float] = {}
    for family in [family_of(reading, max_rows=max_rows) for reading in readings]:
        for sample in [] if isinstance(family, ViewRefusal) else family.samples:
            key = frozenset(sample.labels.items())
            if sample.value < seen.get(key, 0.0):
                yield "error", "falling", f"a counter fell from {seen[key]:g} to {sample.value:g} while it was watched"
                return
            seen[key] = sample.value


def _nulls(reading: ViewReading) -> _Faults:
    assert isinstance(reading.shape, ViewShape)
    assert not isinstance(reading.rows, ViewRefusal)
    for number, label in enumerate(reading.shape.labels):
        rows = sum(row[number] is None for row in reading.rows)
        if rows:
            yield (
                "warning",
                "null_label",
                f"label {label} is NULL in {rows} rows, where Prometheus sees no label",
            )


def _conventions(shape: ViewShape, reading: ViewReading) -> _Faults:
    name = reading.view.name
    value_type = next(column.type for column in reading.view.columns if column.name == "value")
    suffix = _SUFFIXES.get(value_type)
    if suffix is not None and not name.removesuffix("_total").endswith(suffix):
        yield "warning", "unit", f"its value is {value_type}: the name should end in {suffix}"
    odd = _ODD_UNIT.search(name)
    if odd is not None:
        yield "warning", "unit", f"{odd[1]} is no base unit: seconds, bytes and ratios are"
    taken = _TAKEN_SUFFIX.search(name)
    if taken is not None:
        yield "warning", "name", f"the suffix _{taken[1]} is reserved by the exposition formats"
    if name.startswith("pulse_"):
        yield "warning", "name", "the exporter adds pulse_ itself"
    if name != name.lower():
        yield "warning", "name", "the name should be in lower case"
    for label in shape.labels:
        if label in _TARGET_LABELS:
            yield "warning", "label", f"{label} is a label that Prometheus adds"
