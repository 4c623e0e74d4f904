"""How an attempt ended, as a value: a receiver that says no is no surprise."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

# RFC 9110: the same request may succeed later. 5xx is added by range.
_TEMPORARY = frozenset({408, 425, 429})
# A receiver may ask for a pause, not for silence: an alert that waits longer than this is no alert.
LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver accepted the notification."""

    status_code: int


@dataclass(frozen=True, slots=True)
class Retry:
    """It may succeed later. retry_after_seconds: the pause the receiver asked for."""

    reason: str
    status_code: int | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never succeed."""

    reason: str
    status_code: int | None = None


Outcome: TypeAlias = Delivered | Retry | Refused


def classify(status_code: int, *, said: str = "", retry_after_seconds: float | None = None) -> Outcome:
    """What a status means for the job; said is what the receiver gave as its reason."""
    if 200 <= status_code < 300:
        return Delivered(status_code)
    reason = f"HTTP {status_code}" + (f": {said}" if said else "")
    if status_code in _TEMPORARY or status_code >= 500:
        return Retry(reason, status_code, retry_after_seconds)
    if 300 <= status_code < 400:
        return Refused(f"HTTP {status_code}: redirects are not followed", status_code)
    if status_code == 410:
        return Refused("HTTP 410: the receiver is gone for good; change, disable or delete the channel", status_code)
    return Refused(reason, status_code)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds of a Retry-After header, a number or an HTTP date, at most an hour; None when absent or neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return min(float(value[:9]), LONGEST_PAUSE_SECONDS)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, IndexError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), LONGEST_PAUSE_SECONDS)
