"""The OpenAPI document. It adds problems, security schemes, entity tags and roles to what FastAPI generates."""

import warnings
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.shared.metrics import AUTH_FAILURE_REASONS
from services.ui_iot.auth.guard import ROLES_MEMBER
from services.ui_iot.http.problems import MEDIA_TYPE, UNREADABLE
from services.ui_iot.resources.entity_tags import Versioned

_DESCRIPTION = """
Alerting for fleets of IoT devices.

Devices send readings to `POST /ingest/v1/readings`. Rules turn readings into alerts, and routes send alerts to
channels.

**Tracing.** Every response has an `X-Trace-ID`. To choose it, send `X-Trace-ID` (32 hexadecimal digits or a UUID) or a
W3C `traceparent`.

**Lists** are paged: pass `next_cursor` as `cursor` until it is null.

**Errors** are `application/problem+json` (RFC 9457).

**Requests** are validated strictly. A body is JSON in UTF-8, sent as `application/json`, as another `+json` type or
without `Content-Type`; any other type gets 415. Unknown members get 422. Numbers in paths and queries are decimal
digits, flags are `true` or `false`, and times are RFC 3339 text with a zone. `HEAD` works wherever `GET` does.

**Concurrent changes.** A resource that can be changed has an `ETag`. Send it as `If-Match` to change the resource only
if it has not changed since; otherwise the answer is 412. A `GET` with it as `If-None-Match` gets 304 if nothing
has changed. Status members such as a device's `last_seen_at` change the `ETag`, but an older tag that differs only in
them still admits a change.

**Repeated requests.** Every `POST` under `/api/v1` accepts an `Idempotency-Key`, which is kept for 24 hours. If the
same caller repeats a request with the same address, key and body, it has no second effect and gets the same answer,
including tokens and secrets. Another body gets 422. If two such requests run at once, the second waits for the first.
A failed request does not use its key. Use a random key, such as a UUID, because it also encrypts the secrets of the
stored answer. Readings need no key: they are stored once for each device, metric and timestamp.
"""

_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "trace_id"],
    "properties": {
        "type": {"type": "string", "description": "Kind of problem, as a URN."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "Description of the error for people."},
        "trace_id": {
            "type": ["string", "null"],
            "description": "Trace id of the request, to search for in logs and in the audit trail.",
        },
        "reason": {
            "type": "string",
            "description": f"Reason for refusing the caller: {', '.join(AUTH_FAILURE_REASONS)}; audit_unavailable "
            "if the request cannot be recorded.",
        },
        "errors": {
            "type": "array",
            "description": "The invalid parts of the request.",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}

_SECURITY_SCHEMES = {
    "userToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of your identity provider, signed with RS256, PS256, ES256 or ES384. It "
        "needs the claims iss, aud, sub, iat and exp, and the claims of tenant and role (docs/identity-providers.md).",
    },
    "sessionCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "pulse_session",
        "description": "An access token, as for userToken.",
    },
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "The key of a machine (pulse_key_…), shown once when it is created. A request needs the scope "
        "of its part of the API: the first tag of the operation with :read for GET, with :write otherwise.",
    },
    "deviceToken": {"type": "http", "scheme": "bearer", "description": "The token of a device (pdt_…), shown once."},
}

_PROBLEMS: dict[int, tuple[str, str, str]] = {
    400: ("Bad Request", UNREADABLE, ""),
    401: ("Unauthorized", "The token has expired.", "expired"),
    403: ("Forbidden", "This needs the role admin.", "forbidden"),
    404: ("Not Found", "There is no alert 42.", ""),
    409: ("Conflict", "It exists already, or something still uses it.", ""),
    412: ("Precondition Failed", "It was changed since the ETag in If-Match was read; get it again.", ""),
    413: ("Content Too Large", "The body may have 65536 bytes.", ""),
    415: ("Unsupported Media Type", "The body must be JSON in UTF-8, sent as application/json.", ""),
    422: ("Unprocessable Content", "The request does not have the form that is expected.", ""),
    429: ("Too Many Requests", "Too many failed attempts.", "rate_limited"),
    500: ("Internal Server Error", "Something went wrong here; the trace id finds it in our log.", ""),
    503: ("Service Unavailable", "The database is not available.", ""),
}
# Problems of any request.
_COMMON = (401, 403, 422, 429, 500, 503)
# Problems of requests with a body.
_OF_BODIES = (400, 413, 415)
# Problems of requests with entity tags or an idempotency key.
_OF_CONDITIONS = (400, 412)
_ETAG = {
    "description": "Version of the resource, for If-None-Match and If-Match.",
    "schema": {"type": "string", "examples": ['"5f1d0c7e2b9a4c36.0d9e8f7a6b5c4d3e"']},
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Known ETags. If the current one is among them, the answer is 304.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route: the common problems and these."""
    return {status: _describe(status) for status in sorted({*_COMMON, *statuses})}


def _describe(status: int) -> dict[str, Any]:
    title, detail, reason = _PROBLEMS[status]
    example: dict[str, Any] = {
        "type": f"urn:pulse:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    if reason:
        example["reason"] = reason
    return {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }


def install_openapi(app: FastAPI, *, version: str) -> None:
    """Complete the application's document, which is generated once, at the first request."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = _generate(app, version)
            components = made.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
            components["securitySchemes"] = _SECURITY_SCHEMES
            for method, operation in _operations(made):
                _complete(method, operation)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _generate(app: FastAPI, version: str) -> dict[str, Any]:
    """Return FastAPI's document without HEAD, which has the operation id of its GET."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Duplicate Operation ID")
        made = get_openapi(title="Pulse", version=version, description=_DESCRIPTION, routes=app.routes)
    for operations in made["paths"].values():
        operations.pop("head", None)
    return made


def _operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [item for path in document["paths"].values() for item in path.items()]


def _complete(method: str, operation: dict[str, Any]) -> None:
    """Add what the route class does for each route: problems of bodies and preconditions, entity tags and roles."""
    answers = operation["responses"]
    parameters = operation.setdefault("parameters", [])
    statuses: set[int] = set()
    if "requestBody" in operation:
        statuses.update(_OF_BODIES)
    if any(parameter["name"] in ("If-Match", "Idempotency-Key") for parameter in parameters):
        statuses.update(_OF_CONDITIONS)
    for answer in (answers[status] for status in ("200", "201") if status in answers):
        if _shown_in(answer) in _versioned():
            answer["headers"] = {**answer.get("headers", {}), "ETag": _ETAG}
            if method == "get":
                statuses.update(_OF_CONDITIONS)
                parameters.append(_IF_NONE_MATCH)
                operation["responses"]["304"] = {"description": "Not Modified", "headers": {"ETag": _ETAG}}
    answers |= {str(status): _describe(status) for status in statuses}
    operation["responses"] = dict(sorted(answers.items()))
    if not parameters:
        del operation["parameters"]
    roles = operation.get(ROLES_MEMBER)
    if roles:
        said = operation.get("description", "")
        operation["description"] = f"{said}\n\nRoles: {', '.join(roles)}.".strip()


def _shown_in(answer: dict[str, Any]) -> str:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _versioned(kind: type[Versioned] = Versioned) -> set[str]:
    """Return the names of all schemas of versioned resources."""
    return {kind.__name__}.union(*map(_versioned, kind.__subclasses__()))
