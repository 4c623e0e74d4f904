"""Handlers that turn errors of the application into problems, with the one table from SQLSTATE to HTTP."""

import logging
from collections.abc import Sequence
from http import HTTPStatus

import asyncpg
import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from services.shared.audit import AuditBlocked
from services.shared.db import UNAVAILABLE, is_rebuilt, outage, replace_stale
from services.ui_iot.auth.request_context import context_of
from services.ui_iot.http.problems import (
    CLIENT_GONE,
    UNREADABLE,
    LimitReached,
    RequestRefused,
    blocked_problem,
    problem,
    refusal_problem,
)
from services.ui_iot.middleware.path_template import PathTemplates

log = logging.getLogger(__name__)

# FastAPI's detail for a body that is not UTF-8 or nested too deep. Other bodies that are not JSON are json_invalid.
_FASTAPI_UNREADABLE = "There was an error parsing the body"

# Pulse's own states have a message for the caller. Other states show only the kind of fault.
_STATES = {"PU403": 403, "PU404": 404, "PU409": 409, "PU422": 422}
# State of a refusal by a limit of the tenant. Its detail is JSON with limit and value.
LIMIT_REACHED = "PULIM"
_CHANGED = "The database was changed meanwhile; try again."
_CLASSES: dict[str, tuple[int, str]] = {
    "22": (422, "A value cannot be stored as it is."),
    "23": (422, "A value is not allowed."),
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


def install_problem_handlers(app: FastAPI) -> None:
    """Install the handlers that answer every error of the application with a problem."""
    templates = PathTemplates(app.routes)

    async def on_method_not_allowed(request: Request, _error: Exception) -> Response:
        # The router names the methods of one route at the address. RFC 9110 requires those of all.
        allowed = ", ".join(sorted(templates.methods_at(request.scope)))
        return problem(405, f"This address answers {allowed}.", headers={"Allow": allowed})

    app.add_exception_handler(405, on_method_not_allowed)
    app.add_exception_handler(RequestRefused, _on_refused)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(AuditBlocked, _on_audit_blocked)
    app.add_exception_handler(asyncpg.PostgresError, _on_postgres_error)
    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, _on_database_away)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_fault)


async def _on_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return refusal_problem(error.refusal)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    is_specific = error.detail not in (HTTPStatus(error.status_code).phrase, _FASTAPI_UNREADABLE)
    detail = error.detail if is_specific else _describe(error.status_code)
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
    # The input is left out of pydantic's errors: it may be a secret.
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
    # The client does not read it. The status keeps the request from counting as a fault of the server.
    return Response(status_code=CLIENT_GONE)


async def _on_database_away(request: Request, error: Exception) -> Response:
    log.warning("database away: %s: %s", type(error).__name__, error)
    await _replace_stale(request, error)
    return problem(503, outage(error) or "The database is not available.")


async def _on_fault(_request: Request, error: Exception) -> Response:
    log.error("request failed: %s", type(error).__name__, exc_info=error)
    return problem(500, "Something went wrong here; the trace id finds it in our log.")
