"""Readings as devices send them: checked one by one in plain code, for a model each would cost five times as much."""

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

_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LONGEST_NAME = 128
# Seconds since 1970 of the year 5138: what is greater was meant as milliseconds.
_GREATEST_EPOCH = 1e11


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a reading is refused. reason: from a closed list; detail: for people."""

    reason: str
    detail: str


NOT_A_READING = Fault("invalid_reading", "A reading is an object with device_id, metric, value and maybe timestamp.")
UNKNOWN_MEMBER = Fault("invalid_reading", "A reading has no members but device_id, metric, value and timestamp.")
INVALID_DEVICE_ID = Fault("invalid_device_id", "device_id must be 1 to 128 letters, digits or any of . _ : -")
INVALID_METRIC = Fault("invalid_metric", "metric must be 1 to 128 letters, digits or any of . _ : / -")
INVALID_VALUE = Fault("invalid_value", "value must be a finite number.")
INVALID_TIMESTAMP = Fault("invalid_timestamp", "timestamp must be RFC 3339 text with a zone, or seconds since 1970.")
TOO_OLD = Fault("timestamp_too_old", "timestamp lies further in the past than is taken.")
IN_FUTURE = Fault("timestamp_in_future", "timestamp lies further in the future than is taken.")
NOT_ALLOWED = Fault("device_not_allowed", "The token of a device that is no gateway reports only that device.")
SERIES_LIMIT = "series_limit"
BY_DATABASE = {
    "unknown_device": "The tenant has no device with this device_id.",
    "device_disabled": "The device is disabled.",
    SERIES_LIMIT: "The tenant has as many series, pairs of device and metric, as its limit allows. "
    "The operator of Pulse raises it: pulse tenant limit TENANT series VALUE",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What readings are taken. only_device: the one device that the caller may report, None for any."""

    now: datetime
    max_age_seconds: float
    max_future_seconds: float
    only_device: str | None = None


@dataclass(slots=True)
class Batch:
    """The readings that are good so far, column by column, with their places in the request, and the refused."""

    device_ids: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    timestamps: list[datetime] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, index: int, fault: Fault) -> None:
        """Note why the reading at this place of the request is refused."""
        self.refused.append({"index": index, "reason": fault.reason, "detail": fault.detail})

    def refuse_stored(self, refused: Sequence[Mapping[str, Any]]) -> None:
        """Add what the database refused, whose indexes count the readings that it was given."""
        for entry in refused:
            reason = entry["reason"]
            fault = Fault(reason, BY_DATABASE.get(reason, "The device is refused."))
            self.refuse(self.positions[entry["index"]], fault)
        self.refused.sort(key=lambda entry: int(entry["index"]))


def decode_readings(body: bytes) -> list[Any] | None:
    """The readings of {"readings": […]}, of a bare array, or the one that is an object itself; None when it is none.

    Raises ValueError when the body is not JSON.
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
    """What orjson refuses as a whole for one number or text of it, so that only that reading is lost.

    1e999, NaN, Infinity and numbers of thousands of digits become floats, lone surrogates stay; both are refused later.
    """
    try:
        return json.loads(body.decode(), parse_int=float)
    except RecursionError:
        raise ValueError("nested too deep") from None


def check_readings(items: Sequence[Any], limits: Limits, *, batch: Batch | None = None, first: int = 0) -> Batch:
    """Sort the good from the refused. A reading without timestamp gets the time of the request.

    batch gets the readings, a new one by default. first: the place in the request of the first one.
    """
    batch = Batch() if batch is None else batch
    earliest = limits.now - timedelta(seconds=limits.max_age_seconds)
    latest = limits.now + timedelta(seconds=limits.max_future_seconds)
    for index, item in enumerate(items, first):
        fault = _find_fault(item, limits.only_device)
        if fault is None:
            # A microsecond apart, or a second reading of one metric without timestamp would replace the first.
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


def _find_fault(item: Any, only_device: str | None) -> Fault | None:
    if type(item) is not dict:
        return NOT_A_READING
    device_id, metric, value = item.get("device_id"), item.get("metric"), item.get("value")
    fault: Fault | None = None
    # The length comes first: what is remembered must be short.
    if type(device_id) is not str or len(device_id) > _LONGEST_NAME or not _is_device_id(device_id):
        fault = INVALID_DEVICE_ID
    elif type(metric) is not str or len(metric) > _LONGEST_NAME or not _is_metric(metric):
        fault = INVALID_METRIC
    elif not _is_finite(value):
        fault = INVALID_VALUE
    elif len(item) != 3 + ("timestamp" in item):
        # A misspelt timestamp must not become "now" without a word.
        fault = UNKNOWN_MEMBER
    elif only_device is not None and device_id != only_device:
        fault = NOT_ALLOWED
    return fault


def _is_finite(value: Any) -> bool:
    # bool is an int to isinstance, and math.isfinite fails on an integer that no float holds.
    return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) <= sys.float_info.max


# The same few names come in every batch; remembering them halves the cost of a reading.
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
