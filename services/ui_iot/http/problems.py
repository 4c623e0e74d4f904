"""Every error as RFC 9457 problem+json with the trace id, and the one table from SQLSTATE to HTTP."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg
import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from services.shared import tracing
from services.shared.audit import AuditBlocked
from services.shared.db import UNAVAILABLE, is_rebuilt, outage, replace_stale
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.request_context import context_of
from services.ui_iot.middleware.path_template import PathTemplates

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# By RFC 9110; Python's own words for these two change with its version.
_TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
RETRY_SECONDS = 2
# What FastAPI says about a body that is not UTF-8 or nested too deep; the rest that is no JSON is json_invalid to it.
_FASTAPI_UNREADABLE = "There was an error parsing the body"
UNREADABLE = "The body is not JSON that can be read."
# What a request counts as whose client left before it was answered; nginx's number for it.
CLIENT_GONE = 499

# Our own states carry a message written for the caller; of the others only the kind of fault is told.
_STATES = {"PU403": 403, "PU404": 404, "PU409": 409, "PU422": 422}
# The database's state for what a limit of the tenant refuses; its detail is JSON with limit and value.
LIMIT_REACHED = "PULIM"
_CHANGED = "The database was changed meanwhile; try again."
_CLASSES: dict[str, tuple[int, str]] = {
    "22": (422, "A value cannot be stored as it is."),
    "23": (422, "A value is outside of what is allowed."),
    "40": (503, "Another change came between; try again."),
    "55": (503, "Something else holds what this request needs."),
    "0A": (503, _CHANGED),
}
_CONSTRAINTS: dict[str, tuple[int, str]] = {
    "devices_pkey": (409, "A device with this device_id exists."),
    "notification_channels_tenant_id_name_key": (409, "A channel with this name exists."),
    "escalation_policies_tenant_id_name_key": (409, "An escalation policy with this name exists."),
    "notification_routes_channel_id_fkey": (422, "channel_id names no channel."),
    "notification_routes_rule_id_fkey": (422, "rule_id names no rule."),
    "escalation_steps_channel_id_fkey": (422, "channel_id of a step names no channel."),
    "alert_rules_policy_id_fkey": (422, "policy_id names no escalation policy."),
    "alert_rules_scope_check": (422, "A rule watches one device or one tag, not both."),
}
_NO_TENANT = (403, "The tenant of the token does not exist.")


class Refused(Exception):
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


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    templates = PathTemplates(app.routes)

    async def on_method_not_allowed(request: Request, _error: Exception) -> Response:
        # The router names the methods of one route of the address; RFC 9110 asks for those of all.
        allowed = ", ".join(sorted(templates.methods_at(request.scope)))
        return problem(405, f"This address answers {allowed}.", headers={"Allow": allowed})

    app.add_exception_handler(405, on_method_not_allowed)
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(AuditBlocked, _on_audit_blocked)
    app.add_exception_handler(asyncpg.PostgresError, _on_postgres_error)
    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, _on_database_away)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_fault)


async def _on_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal_problem(error.refusal)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = error.detail not in (HTTPStatus(error.status_code).phrase, _FASTAPI_UNREADABLE)
    detail = error.detail if told else _describe(error.status_code)
    members = error.members if isinstance(error, LimitReached) else {}
    return problem(error.status_code, detail, headers=error.headers, **members)


def _describe(status: int) -> str:
    match status:
        case 400:
            return UNREADABLE
        case 404:
            return "There is nothing at this address."
        case _:
            return HTTPStatus(status).phrase


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        return problem(400, UNREADABLE)
    # Pydantic's errors quote what was sent, which may be a secret.
    errors = [
        {"pointer": _point_to(fault["loc"]), "detail": fault["msg"].removeprefix("Value error, ")}
        for fault in error.errors()
    ]
    return problem(422, "The request does not have the form that is expected.", errors=errors[:50])


def _point_to(location: Sequence[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)[:300]


async def _on_postgres_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, asyncpg.PostgresError)
    state = error.sqlstate or ""
    if state in _STATES:
        return problem(_STATES[state], str(error.message))
    if state == LIMIT_REACHED:
        return _limit_problem(request, error)
    constraint = getattr(error, "constraint_name", None) or ""
    known = _NO_TENANT if constraint.endswith("_tenant_id_fkey") else _CONSTRAINTS.get(constraint)
    status, detail = known or _fault_of(error)
    if status == 500:
        return await _on_fault(request, error)
    log.info("database refused: %s", type(error).__name__, extra={"sqlstate": state, "constraint": constraint})
    await _replace_stale(request, error)
    return problem(status, detail)


def _limit_problem(request: Request, error: asyncpg.PostgresError) -> Response:
    facts = orjson.loads(str(getattr(error, "detail", None)))
    backend, principal = request.app.state.backend, context_of(request.scope).principal
    assert principal is not None, "only a tenant has limits"
    backend.refusals.count(principal.tenant_id, facts["limit"], facts["value"])
    return problem(422, str(error.message), reason="limit_reached", **facts)


def _fault_of(error: asyncpg.PostgresError) -> tuple[int, str]:
    detail = outage(error)
    if detail is not None:
        return 503, detail
    if is_rebuilt(error):
        return 503, _CHANGED
    return _CLASSES.get((error.sqlstate or "")[:2], (500, ""))


async def _replace_stale(request: Request, error: BaseException) -> None:
    backend = getattr(request.app.state, "backend", None)
    if backend is not None:
        await replace_stale(backend.process.pool, error)


async def _on_audit_blocked(_request: Request, _error: Exception) -> Response:
    return blocked_problem()


async def _on_client_gone(_request: Request, _error: Exception) -> Response:
    # Nobody reads it; it ends the request as what it is, and not as a fault of ours.
    return Response(status_code=CLIENT_GONE)


async def _on_database_away(request: Request, error: Exception) -> Response:
    log.warning("database away: %s: %s", type(error).__name__, error)
    await _replace_stale(request, error)
    return problem(503, outage(error) or "The database is not available.")


async def _on_fault(_request: Request, error: Exception) -> Response:
    log.error("request failed: %s", type(error).__name__, exc_info=error)
    return problem(500, "Something went wrong here; the trace id finds it in our log.")
