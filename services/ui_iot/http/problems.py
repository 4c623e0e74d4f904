"""Errors as RFC 9457 problem+json with the trace id."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.shared import tracing
from services.ui_iot.auth.refusals import Refusal

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# Titles of RFC 9110. Python's own phrases for these change with its version.
_TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
RETRY_SECONDS = 2
UNREADABLE = "The body is not JSON that can be read."
# Status that is logged if the client left before the answer, as in nginx.
CLIENT_GONE = 499


class RequestRefused(Exception):
    """The guard refused the caller."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class _FixedStatus(HTTPException):
    status: ClassVar[int]

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(self.status, detail, headers)


class BadRequest(_FixedStatus):
    """A header or the body is malformed."""

    status = 400


class NotFound(_FixedStatus):
    """The tenant has no such resource."""

    status = 404


class PreconditionFailed(_FixedStatus):
    """The resource is not in the state that the request names."""

    status = 412


class TooLarge(_FixedStatus):
    """The request is above a size limit."""

    status = 413


class UnsupportedMediaType(_FixedStatus):
    """The body has an unsupported format."""

    status = 415


class Unprocessable(_FixedStatus):
    """The request is well formed, but its content is invalid."""

    status = 422


class LimitReached(HTTPException):
    """A limit of the tenant is reached. seconds: time after which a retry may succeed."""

    def __init__(self, detail: str, *, limit: str, value: int, seconds: int) -> None:
        super().__init__(429, detail, {"Retry-After": str(seconds)})
        self.members = {"reason": "limit_reached", "limit": limit, "value": value}


class Overloaded(HTTPException):
    """The request would exceed its share of memory. The rest of its body is read and dropped."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail, {"Retry-After": str(RETRY_SECONDS)})


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """Return a problem response. members: further members beside the standard ones."""
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
    """Return the response to a refused request."""
    status = refusal.status
    headers: dict[str, str] = {}
    if status == 401:
        error = "" if refusal.reason == "missing_token" else ', error="invalid_token"'
        headers["WWW-Authenticate"] = f'Bearer realm="pulse"{error}'
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    return problem(status, refusal.detail, headers=headers, reason=refusal.reason)


def blocked_problem() -> Response:
    """Return the response to a request whose audit event could not be stored."""
    return problem(503, "The request cannot be put on record now.", reason="audit_unavailable")
