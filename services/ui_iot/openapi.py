"""The OpenAPI document: what FastAPI cannot know by itself is problems, security and who may do what."""

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

Devices send readings to `POST /ingest/v1/readings`; rules turn readings into alerts; routes lead alerts to channels.
Every response carries `X-Trace-ID`; send one (32 hexadecimal digits, a UUID, or a W3C `traceparent`) to choose it.
Lists come in pages: pass `next_cursor` back as `cursor` until it is null. Every error is `application/problem+json`.

Requests are read strictly. A body is JSON in UTF-8, sent as `application/json`, as another `+json` type or without
`Content-Type`; any other type gets 415. Members that the schema does not list get 422. Numbers in paths and queries
are plain decimal digits, flags are `true` or `false`, times are RFC 3339 text with a zone. `HEAD` works wherever
`GET` does.

A resource that can be changed carries an `ETag`. A change with this tag as `If-Match` is made only while the resource
is as it was read; otherwise the answer is 412. A GET with it as `If-None-Match` gets 304 while nothing has changed.
Without these headers nothing is compared. Members that only report, such as a device's `last_seen_at`, change the
`ETag`, but the older tag still admits a change.

Every `POST` under `/api/v1` honors `Idempotency-Key` for 24 hours: a request that the same caller sends again to the
same address with the same key and body has no second effect and gets the same answer, tokens and secrets included.
Another body gets 422. Of two such requests at once, the second waits for the first. A failed request does not use up
its key. Use a random key, such as a UUID: it also encrypts the secrets of the stored answer. Readings need no key:
they are stored once for each device, metric and timestamp.
"""

_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "An error by RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "trace_id"],
    "properties": {
        "type": {"type": "string", "description": "Name of the kind of problem."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, for people."},
        "trace_id": {"type": ["string", "null"], "description": "Finds the request in logs and audit trail."},
        "reason": {
            "type": "string",
            "description": f"Why the caller is not let in: {', '.join(AUTH_FAILURE_REASONS)}, or audit_unavailable "
            "when it cannot be recorded.",
        },
        "errors": {
            "type": "array",
            "description": "What is wrong where in the request.",
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
        "description": "An access token signed with RS256, PS256, ES256 or ES384, with the claims iss, aud, sub, "
        "iat, exp, and those of tenant and role (docs/identity-providers.md).",
    },
    "sessionCookie": {"type": "apiKey", "in": "cookie", "name": "pulse_session", "description": "The same token."},
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "pulse_key_…, shown once when a machine's key is created. It also needs the scope of the part: "
        "the first tag of the operation with :read for GET, with :write otherwise.",
    },
    "deviceToken": {"type": "http", "scheme": "bearer", "description": "pdt_…, shown once when a device is created."},
}

_PROBLEMS: dict[int, tuple[str, str, str]] = {
    400: ("Bad Request", UNREADABLE, ""),
    401: ("Unauthorized", "The token has expired.", "expired"),
    403: ("Forbidden", "This needs one of the roles admin.", "forbidden"),
    404: ("Not Found", "There is no such thing.", ""),
    409: ("Conflict", "It exists already, or something still uses it.", ""),
    412: ("Precondition Failed", "It was changed since the ETag in If-Match was given out; get it again.", ""),
    413: ("Content Too Large", "The body may have 65536 bytes.", ""),
    415: ("Unsupported Media Type", "The body must be JSON in UTF-8, sent as application/json.", ""),
    422: ("Unprocessable Content", "The request does not have the form that is expected.", ""),
    429: ("Too Many Requests", "Too many failed attempts.", "rate_limited"),
    500: ("Internal Server Error", "Something went wrong here; the trace id finds it in our log.", ""),
    503: ("Service Unavailable", "The database is not available.", ""),
}
# Any request that is let in can meet these.
_COMMON = (401, 403, 422, 429, 500, 503)
# Any request with a body can meet these too.
_OF_BODIES = (400, 413, 415)
# Any request that names entity tags or an idempotency key can meet these too.
_OF_CONDITIONS = (400, 412)
_ETAG = {
    "description": "Changes with what is shown; for If-None-Match, and for If-Match of a change.",
    "schema": {"type": "string", "examples": ['"5f1d0c7e2b9a4c36.0d9e8f7a6b5c4d3e"']},
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "ETags that the caller has; 304 when it is one of them.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For responses of a route: the common problems and these."""
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
    """Make the application's document complete; it is made once, at the first request."""

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
    """Return FastAPI's document. HEAD is left out: it is GET without a body, with the same operation id."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Duplicate Operation ID")
        made = get_openapi(title="Pulse", version=version, description=_DESCRIPTION, routes=app.routes)
    for operations in made["paths"].values():
        operations.pop("head", None)
    return made


def _operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [item for path in document["paths"].values() for item in path.items()]


def _complete(method: str, operation: dict[str, Any]) -> None:
    """Add what one route class does for every route: problems of bodies and preconditions, entity tags, roles."""
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
    """Return the names of all schemas of resources with an entity tag."""
    return {kind.__name__}.union(*map(_versioned, kind.__subclasses__()))
