"""Readings from devices, checked one by one in plain code, because a model for each would cost five times as much."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from services.ui_iot.http.json_route import without_mark
from services.ui_iot.resources.fields import RFC3339

_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
_LONGEST_NAME = 128
# Seconds since 1970 up to the year 5138. A greater number is meant as milliseconds.
_GREATEST_EPOCH = 1e11


@dataclass(frozen=True, slots=True)
class ReadingFault:
    """The reason for refusing a reading. reason: one of a closed list. detail: a sentence for people."""

    reason: str
    detail: str


NOT_A_READING = ReadingFault(
    "invalid_reading", "A reading is an object with device_id, metric, value and maybe timestamp."
)
UNKNOWN_MEMBER = ReadingFault("invalid_reading", "A reading has no members but device_id, metric, value and timestamp.")
INVALID_DEVICE_ID = ReadingFault("invalid_device_id", "device_id must be 1 to 128 letters, digits or any of . _ : -")
INVALID_METRIC = ReadingFault("invalid_metric", "metric must be 1 to 128 letters, digits or any of . _ : / -")
INVALID_VALUE = ReadingFault("invalid_value", "value must be a finite number.")
INVALID_TIMESTAMP = ReadingFault(
    "invalid_timestamp", "timestamp must be RFC 3339 text with a zone, or seconds since 1970."
)
TOO_OLD = ReadingFault("timestamp_too_old", "timestamp lies further in the past than is accepted.")
IN_FUTURE = ReadingFault("timestamp_in_future", "timestamp lies further in the future than is accepted.")
NOT_ALLOWED = ReadingFault("device_not_allowed", "The token of a device that is no gateway reports only that device.")
SERIES_LIMIT = "series_limit"
BY_DATABASE = {
    "unknown_device": "The tenant has no device with this device_id.",
    "device_disabled": "The device is disabled.",
    SERIES_LIMIT: "The tenant has as many series, pairs of device and metric, as its limit allows. "
    "The operator of Pulse raises it: pulse tenant limit TENANT series VALUE",
}


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """Limits on readings. only_device: the one device that the caller may report, or None for any."""

    now: datetime
    max_age_seconds: float
    max_future_seconds: float
    only_device: str | None = None


@dataclass(slots=True)
class ReadingBatch:
    """The accepted readings in columns, with their positions in the request, and the refused readings."""

    device_ids: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    timestamps: list[datetime] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, index: int, fault: ReadingFault) -> None:
        """Add the refusal of the reading at this position of the request."""
        self.refused.append({"index": index, "reason": fault.reason, "detail": fault.detail})

    def refuse_stored(self, refused: Sequence[Mapping[str, Any]]) -> None:
        """Add the refusals of the database, whose indexes count the accepted readings."""
        for entry in refused:
            reason = entry["reason"]
            fault = ReadingFault(reason, BY_DATABASE.get(reason, "The device is refused."))
            self.refuse(self.positions[entry["index"]], fault)
        self.refused.sort(key=lambda entry: int(entry["index"]))


def decode_readings(body: bytes) -> list[Any] | None:
    """Return the readings of {"readings": […]}, of a bare array or of a single object, or None for other documents.

    Raises ValueError if the body is not JSON.
    """
    if not body:
        return None
    body = without_mark(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _decode_leniently(body)
    if isinstance(document, dict):
        if "readings" not in document:
            return [document]
        document = document["readings"] if len(document) == 1 else None
    return document if isinstance(document, list) else None


def _decode_leniently(body: bytes) -> Any:
    """Return a document that orjson refuses because of one number or text, so that only that reading is refused.

    1e999, NaN, Infinity and numbers of thousands of digits become floats, and lone surrogates stay. The checks of the
    reading refuse both.
    """
    try:
        return json.loads(body.decode(), parse_int=float)
    except RecursionError:
        raise ValueError("nested too deep") from None


def check_readings(
    items: Sequence[Any], limits: ReadingLimits, *, batch: ReadingBatch | None = None, first: int = 0
) -> ReadingBatch:
    """Return the accepted and the refused readings. A reading without timestamp gets the time of the request.

    batch: takes the readings; a new one by default. first: position of the first item in the request.
    """
    batch = ReadingBatch() if batch is None else batch
    earliest = limits.now - timedelta(seconds=limits.max_age_seconds)
    latest = limits.now + timedelta(seconds=limits.max_future_seconds)
    for index, item in enumerate(items, first):
        fault = _find_fault(item, limits.only_device)
        if fault is None:
            # A microsecond apart, or a metric's second reading without timestamp would replace the first.
            timestamp = (
                _read_timestamp(item["timestamp"])
                if item.get("timestamp") is not None
                else limits.now + timedelta(microseconds=index)
            )
            if timestamp is None:
                fault = INVALID_TIMESTAMP
            elif timestamp < earliest:
                fault = TOO_OLD
            elif timestamp > latest:
                fault = IN_FUTURE
            else:
                batch.device_ids.append(item["device_id"])
                batch.metrics.append(item["metric"])
                batch.timestamps.append(timestamp)
                batch.values.append(float(item["value"]))
                batch.positions.append(index)
                continue
        batch.refuse(index, fault)
    return batch


def _find_fault(item: Any, only_device: str | None) -> ReadingFault | None:
    if type(item) is not dict:
        return NOT_A_READING
    device_id, metric, value = item.get("device_id"), item.get("metric"), item.get("value")
    fault: ReadingFault | None = None
    # The length is checked first, because the cached checks must keep short texts only.
    if type(device_id) is not str or len(device_id) > _LONGEST_NAME or not _is_device_id(device_id):
        fault = INVALID_DEVICE_ID
    elif type(metric) is not str or len(metric) > _LONGEST_NAME or not _is_metric(metric):
        fault = INVALID_METRIC
    elif not _is_finite(value):
        fault = INVALID_VALUE
    elif len(item) != 3 + ("timestamp" in item):
        # Otherwise a misspelled timestamp would silently become "now".
        fault = UNKNOWN_MEMBER
    elif only_device is not None and device_id != only_device:
        fault = NOT_ALLOWED
    return fault


def _is_finite(value: Any) -> bool:
    # isinstance takes a bool for an int, and math.isfinite fails on an integer above the range of float.
    return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) <= sys.float_info.max


# Batches repeat the same few names. Caching their checks halves the cost of a reading.
@lru_cache(maxsize=4096)
def _is_device_id(text: str) -> bool:
    return _DEVICE_ID.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _is_metric(text: str) -> bool:
    return _METRIC.fullmatch(text) is not None


def _read_timestamp(value: Any) -> datetime | None:
    try:
        if type(value) is str:
            return datetime.fromisoformat(value.upper()) if RFC3339.fullmatch(value) else None
        if (type(value) is int or type(value) is float) and -_GREATEST_EPOCH < value < _GREATEST_EPOCH:
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None
