"""Derivation of a metric from the name and columns of a view, or of the reason why it is no metric.

text, enum, uuid columns    labels
value                       sample: number, boolean (0 or 1), interval (seconds), timestamptz (seconds since 1970)
le                          gauge histogram: one row a bucket, with cumulative counts in value
sum                         optional, with le only: sum of the measured values, read from the +Inf row
name ends in _total         counter
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from exporter.catalog import Column, View

LONGEST_LABEL = 1024
"""Maximum of characters of a label's value: a longer text is no dimension."""

# Accepted by every Prometheus. Colons are legal but reserved for recording rules.
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TEXT = frozenset({"text", "varchar", "bpchar", "name", "char", "uuid", "enum"})
_NUMBERS = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})


class Kind(Enum):
    """The types of metric that a view can be."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "gaugehistogram"


# Suffixes that the formats append to the name of a family: no other family may have such a name. The text format
# declares a gauge histogram as a histogram, so the suffixes of a histogram are occupied as well.
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "gauge": ("",),
    "counter": ("", "_total", "_created"),
    "gaugehistogram": ("", "_bucket", "_gcount", "_gsum", "_count", "_sum", "_created"),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
    "info": ("", "_info"),
}


@dataclass(frozen=True, slots=True)
class ViewRefusal:
    """The reason why a view is not served, for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class ViewShape:
    """The shape of a metric. Its rows have the labels, then le (histograms), the sum (if any) and the value."""

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...]
    has_sum: bool
    query: str

    def names(self) -> frozenset[str]:
        """Return every name that the family occupies."""
        return family_names(self.name, self.kind.value)


def family_names(name: str, kind: str) -> frozenset[str]:
    """Return the names that a family of a type occupies. name is without _total."""
    return frozenset(name + suffix for suffix in _SUFFIXES.get(kind, ("",)))


@lru_cache(maxsize=1024)
def shape_of(view: View, *, max_rows: int) -> ViewShape | ViewRefusal:
    """Return the shape of a view. Its query reads one row more than is allowed, to detect too many rows."""
    if not _NAME.fullmatch(view.name):
        return ViewRefusal("its name is not a metric's name")
    if not view.readable:
        return ViewRefusal("the exporter's role may not select from it")
    columns = {column.name: column for column in view.columns}
    if "value" not in columns:
        return ViewRefusal("it has no column value")
    histogram = "le" in columns
    if histogram and view.name.endswith("_total"):
        return ViewRefusal("a counter cannot have a column le")
    special = {"value", "le", "sum"} if histogram else {"value"}
    labels = [column for column in view.columns if column.name not in special]
    found = _refuse_labels(labels) or _refuse_special([columns[name] for name in special if name in columns])
    if found is not None:
        return found
    counter = view.name.endswith("_total")
    return ViewShape(
        name="pulse_" + view.name.removesuffix("_total"),
        help=view.comment,
        kind=Kind.HISTOGRAM if histogram else Kind.COUNTER if counter else Kind.GAUGE,
        labels=tuple(column.name for column in labels),
        has_sum=histogram and "sum" in columns,
        query=_query(
            view.name, labels, [columns[name] for name in ("le", "sum", "value") if name in columns], max_rows
        ),
    )


def _refuse_labels(labels: Iterable[Column]) -> ViewRefusal | None:
    for column in labels:
        if column.type not in _TEXT:
            return ViewRefusal(f"its column {column.name} of type {column.type} is no label")
        if not _NAME.fullmatch(column.name) or column.name.startswith("__"):
            return ViewRefusal(f"{column.name!r} is not a label's name")
    return None


def _refuse_special(columns: Iterable[Column]) -> ViewRefusal | None:
    allowed = {"value": _NUMBERS | {"bool", "interval", "timestamptz"}, "le": _NUMBERS | _TEXT, "sum": _NUMBERS}
    for column in columns:
        if column.type not in allowed[column.name]:
            return ViewRefusal(f"its column {column.name} cannot be of type {column.type}")
    return None


def _query(view: str, labels: list[Column], special: list[Column], max_rows: int) -> str:
    """Return the query of a view, which casts all columns to text or double precision."""
    parts = [f"left({_quoted(column.name)}::text, {LONGEST_LABEL + 1})" for column in labels]
    parts += [_cast(column) for column in special]
    # Every name comes from the catalog and is quoted.
    return f"select {', '.join(parts)} from metrics.{_quoted(view)} limit {max_rows + 1}"  # noqa: S608


def _cast(column: Column) -> str:
    name = _quoted(column.name)
    if column.name == "le":
        return f"{name}::text"
    match column.type:
        case "bool":
            return f"{name}::integer::double precision"
        case "interval" | "timestamptz":
            return f"extract(epoch from {name})::double precision"
        case _:
            return f"{name}::double precision"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
