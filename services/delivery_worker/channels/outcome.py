"""Outcomes of attempts, and the table that maps answers to outcomes.

| Answer | Outcome | Consequence |
|---|---|---|
| 2xx | Delivered | none |
| 429; 503 with Retry-After | Limited | the channel pauses, the job keeps its place and its attempts |
| 410 | Gone | the job is dead, the channel is disabled |
| 400, 411, 413, 414, 415, 417, 422, 431 | Refused | the job is dead: a retry would send the same request |
| every other status: 1xx, 3xx, 401, 403, 404, 405, 408, 409, 425, 5xx, … | Retry | back-off, until the last attempt |
| no connection: DNS, TCP, TLS, proxy | Retry | the same |
| no answer over a connection: time-out, reset, broken answer | Unknown | the same; the request may have arrived |
| an address that is not public, an invalid URL | Refused | the job is dead |

A channel can map the texts of its service more precisely (slack.py, teams.py, pagerduty.py).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias

import httpx

from services.shared.http_client import AddressRefused

Verdict: TypeAlias = Literal["delivered", "limited", "gone", "refused", "retry"]

_REFUSED = frozenset({400, 411, 413, 414, 415, 417, 422, 431})
_SECONDS = re.compile(r"\d{1,300}(\.\d{1,300})?", re.ASCII)
# Keeps the arithmetic finite. PULSE_DELIVERY_RETRY_AFTER_MAX_SECONDS is the effective limit of a pause.
LONGEST_PAUSE_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver accepted the notification."""

    status_code: int


@dataclass(frozen=True, slots=True)
class Retry:
    """A failure that a retry may overcome. retry_after_seconds: the pause that the receiver requested."""

    reason: str
    status_code: int | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Limited:
    """The receiver accepts no more requests for now. retry_after_seconds: the requested pause, if any."""

    reason: str
    status_code: int | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A failure that no retry can overcome."""

    reason: str
    status_code: int | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver is gone for good."""

    reason: str
    status_code: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have arrived: it was canceled, or its answer never came."""

    reason: str
    status_code: None = None


Outcome: TypeAlias = Delivered | Retry | Limited | Refused | Gone | Unknown

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


def verdict_of(status_code: int, *, asked_to_wait: bool = False) -> Verdict:
    """Return the verdict on a status. asked_to_wait: the answer had a usable Retry-After."""
    if 200 <= status_code < 300:
        return "delivered"
    if status_code == 429 or (status_code == 503 and asked_to_wait):
        return "limited"
    if status_code == 410:
        return "gone"
    return "refused" if status_code in _REFUSED else "retry"


def classify(
    status_code: int, *, said: str = "", retry_after_seconds: float | None = None, verdict: Verdict | None = None
) -> Outcome:
    """Return the outcome of an answer. said: its text; verdict: the channel's own, which takes precedence."""
    reason = f"HTTP {status_code}" + (f": {said}" if said else "")
    match verdict or verdict_of(status_code, asked_to_wait=retry_after_seconds is not None):
        case "delivered":
            return Delivered(status_code)
        case "limited":
            return Limited(reason, status_code, retry_after_seconds)
        case "gone":
            return Gone(f"{reason} (gone for good, so the channel was disabled)", status_code)
        case "refused":
            return Refused(reason, status_code)
        case "retry":
            if 300 <= status_code < 400:
                return Retry(f"HTTP {status_code}: redirects are not followed", status_code, retry_after_seconds)
            return Retry(reason, status_code, retry_after_seconds)


def classify_error(error: httpx.TransportError | httpx.InvalidURL, *, said: str) -> Outcome:
    """Return the outcome of a request without an answer. said: the message of the error, without secrets."""
    if isinstance(error, AddressRefused):
        return Refused(said)
    if isinstance(error, httpx.InvalidURL):
        return Refused("the URL is not valid")
    reason = said or type(error).__name__
    return Retry(reason) if isinstance(error, _NOT_SENT) else Unknown(reason)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds in a Retry-After header, a number or an HTTP date; None unless it names a future time."""
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        seconds = float(value)
    else:
        try:
            until = parsedate_to_datetime(value)
            seconds = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
        except (ValueError, IndexError, TypeError, OverflowError):
            return None
    return min(seconds, LONGEST_PAUSE_SECONDS) if seconds > 0 else None
