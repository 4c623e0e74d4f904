"""Errors as RFC 9457 problem+json with the trace id."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.shared import tracing
from services.ui_iot.auth.refusals import Refusal

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# By RFC 9110; Python's own words for these two change with its version.
_TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
RETRY_SECONDS = 2
UNREADABLE = "The body is not JSON that can be read."
# What a request counts as whose client left before it was answered; nginx's number for it.
CLIENT_GONE = 499


class RequestRefused(Exception):
    """The caller may not do this."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class NotFound(HTTPException):
    """There is no such thing among the tenant's."""

    def __init__(self, detail: str) -> None:
        super().__init__(404, detail)


class BadRequest(HTTPException):
    """A header cannot be read."""

    def __init__(self, detail: str) -> None:
        super().__init__(400, detail)


class PreconditionFailed(HTTPException):
    """The resource is not in the state that the request names."""

    def __init__(self, detail: str) -> None:
        super().__init__(412, detail)


class Unreadable(HTTPException):
    """The body is not JSON."""

    def __init__(self) -> None:
        super().__init__(400, UNREADABLE)


class Unprocessable(HTTPException):
    """The request is well formed and makes no sense."""

    def __init__(self, detail: str) -> None:
        super().__init__(422, detail)


class UnsupportedMediaType(HTTPException):
    """The body is in a format that is not read here."""

    def __init__(self, detail: str, headers: Mapping[str, str]) -> None:
        super().__init__(415, detail, headers)


class TooLarge(HTTPException):
    """The request is larger than what is read."""

    def __init__(self, detail: str) -> None:
        super().__init__(413, detail)


class LimitReached(HTTPException):
    """The tenant uses as much of something as one tenant may. seconds: until it makes sense to try again."""

    def __init__(self, detail: str, *, limit: str, value: int, seconds: int) -> None:
        super().__init__(429, detail, {"Retry-After": str(seconds)})
        self.members = {"reason": "limit_reached", "limit": limit, "value": value}


class Overloaded(HTTPException):
    """The request would take more than its share; the rest of its body is read and dropped."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail, {"Retry-After": str(RETRY_SECONDS)})


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """A response that says what is wrong; members stand beside the standard ones."""
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    body = {
        "type": f"urn:pulse:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "trace_id": tracing.current_trace_id(),
        **members,
    }
    if status == 503 and not (headers and "Retry-After" in headers):
        headers = {**(headers or {}), "Retry-After": str(RETRY_SECONDS)}
    return Response(orjson.dumps(body), status, headers, media_type=MEDIA_TYPE)


def refusal_problem(refusal: Refusal) -> Response:
    """The response to a caller that is not let in."""
    status = refusal.status
    headers: dict[str, str] = {}
    if status == 401:
        error = "" if refusal.reason == "missing_token" else ', error="invalid_token"'
        headers["WWW-Authenticate"] = f'Bearer realm="pulse"{error}'
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    return problem(status, refusal.detail, headers=headers, reason=refusal.reason)


def blocked_problem() -> Response:
    """The response to a request that may not go on because it could not be put on record."""
    return problem(503, "The request cannot be put on record now.", reason="audit_unavailable")
