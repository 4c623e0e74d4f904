"""The client's own record of what it asked for and what it was told, written down as it happens."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Final

import orjson

from services.shared import tracing

REFUSALS: Final = frozenset({"auth.login_failure", "auth.forbidden"})
SUCCESS: Final = "auth.login_success"
READ: Final = "read"
FORBIDDEN: Final = "forbidden"
REFUSED_ACTS: Final = ("missing_token", "garbage", "expired", "forged", "unknown_key", "unknown_device")
"""What is answered with 401."""
DENIED: Final = "audit_unavailable"
"""Reason of the 503 that says: this could not be put on record."""


def draw_trace_id(randomness: random.Random) -> str:
    """Return a random trace id as other tracing systems make them, never one with our own layout."""
    while True:
        trace_id = f"{randomness.getrandbits(128) | 1:032x}"
        if not tracing.carries_time(trace_id):
            return trace_id


@dataclass(slots=True)
class Request:
    """One request. act: a word of this module, or the config event that it causes; times in seconds since 1970.

    answered_trace_id: the trace that the answer names, if any.
    """

    trace_id: str
    act: str
    sent_at: float
    answered_at: float | None = None
    status: int | None = None
    reason: str = ""
    answered_trace_id: str | None = None

    @property
    def stored_as(self) -> str:
        """Trace id of the request's audit events: the answer's, which is the sent one if the API continues it."""
        return self.answered_trace_id or self.trace_id

    @property
    def promised(self) -> tuple[str, ...]:
        """Event types that the answer vouches for; none of a request without an answer."""
        if self.status is None or self.status == 500 or self.reason == DENIED:
            return ()
        if self.status == 403:
            return ("auth.forbidden",)
        if self.status == 401 or self.reason == "auth_unavailable":
            return ("auth.login_failure",)
        # Also the 503 of a database that is away says that the caller was let in.
        done = self.status < 300 and self.act.startswith("config.")
        return (SUCCESS, self.act) if done else (SUCCESS,)

    @property
    def possible(self) -> frozenset[str]:
        """Event types that it may have caused, whatever was answered."""
        if self.act in REFUSED_ACTS:
            return frozenset({"auth.login_failure"})
        # While the API cannot read which tokens are revoked it accepts none.
        unread = {"auth.login_failure"} if self.status is None or self.reason == "auth_unavailable" else set()
        if self.act == FORBIDDEN:
            # One whose client left before the role was looked at was let in.
            return frozenset({"auth.forbidden", SUCCESS, *unread})
        return frozenset({SUCCESS, self.act, *unread})

    @property
    def outcome(self) -> str:
        """One word for the summary: how the request ended."""
        if self.status is None:
            return "no answer"
        if self.status == 503:
            return f"503 {self.reason or 'database away'}"
        return str(self.status)


class Journal:
    """Requests by trace id. Two lines of JSON a request: when it is sent, and when it is answered."""

    def __init__(self, file: IO[bytes]) -> None:
        self.requests: dict[str, Request] = {}
        self._file = file

    def send(self, trace_id: str, act: str) -> None:
        """Note that the request is about to be sent."""
        request = Request(trace_id, act, time.time())
        self.requests[trace_id] = request
        self._write({"trace_id": trace_id, "act": act, "sent_at": request.sent_at})

    def answer(self, trace_id: str, status: int, reason: str, answered_trace_id: str | None = None) -> None:
        """Record a complete answer. answered_trace_id: its X-Trace-ID header."""
        request = self.requests[trace_id]
        request.answered_at, request.status, request.reason = time.time(), status, reason
        request.answered_trace_id = answered_trace_id
        line = {"trace_id": trace_id, "answered_at": request.answered_at, "status": status, "reason": reason}
        self._write({**line, "answered_trace_id": answered_trace_id})

    def _write(self, entry: Mapping[str, object]) -> None:
        self._file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()
