"""Client's own record of its requests and their responses, written as they happen."""

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
"""Acts that are answered with 401."""
DENIED: Final = "audit_unavailable"
"""Reason of a 503 for a request that could not be recorded."""


def draw_trace_id(randomness: random.Random) -> str:
    """Return a random trace id as other tracing systems create them, never one with our own layout."""
    while True:
        trace_id = f"{randomness.getrandbits(128) | 1:032x}"
        if not tracing.carries_time(trace_id):
            return trace_id


@dataclass(slots=True)
class SentRequest:
    """Request. act: a constant of this module, or the config event that it causes. Times in seconds since 1970.

    answered_trace_id: the trace in the response, if any.
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
        """Trace id of the request's audit events: that of the response, or the one that was sent."""
        return self.answered_trace_id or self.trace_id

    @property
    def promised(self) -> tuple[str, ...]:
        """Event types that the response promises. Without a response there are none."""
        if self.status is None or self.status == 500 or self.reason == DENIED:
            return ()
        if self.status == 403:
            return ("auth.forbidden",)
        if self.status == 401 or self.reason == "auth_unavailable":
            return ("auth.login_failure",)
        # Even the 503 without a database shows that the caller was authenticated.
        done = self.status < 300 and self.act.startswith("config.")
        return (SUCCESS, self.act) if done else (SUCCESS,)

    @property
    def possible(self) -> frozenset[str]:
        """Event types that the request may have caused, independent of its response."""
        if self.act in REFUSED_ACTS:
            return frozenset({"auth.login_failure"})
        # The API accepts no token while it cannot read the revocations.
        unread = {"auth.login_failure"} if self.status is None or self.reason == "auth_unavailable" else set()
        if self.act == FORBIDDEN:
            # A client that left before its role was checked has logged in.
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


class ClientJournal:
    """Requests by trace id. The file has two JSON lines per request: one when it is sent, one when it is answered."""

    def __init__(self, file: IO[bytes]) -> None:
        self.requests: dict[str, SentRequest] = {}
        self._file = file

    def send(self, trace_id: str, act: str) -> None:
        """Note that the request is about to be sent."""
        request = SentRequest(trace_id, act, time.time())
        self.requests[trace_id] = request
        self._write({"trace_id": trace_id, "act": act, "sent_at": request.sent_at})

    def answer(self, trace_id: str, status: int, reason: str, answered_trace_id: str | None = None) -> None:
        """Record a complete response. answered_trace_id: its X-Trace-ID header."""
        request = self.requests[trace_id]
        request.answered_at, request.status, request.reason = time.time(), status, reason
        request.answered_trace_id = answered_trace_id
        line = {"trace_id": trace_id, "answered_at": request.answered_at, "status": status, "reason": reason}
        self._write({**line, "answered_trace_id": answered_trace_id})

    def _write(self, entry: Mapping[str, object]) -> None:
        self._file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()
