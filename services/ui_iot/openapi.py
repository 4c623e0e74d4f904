"""The OpenAPI document: what FastAPI cannot know by itself is problems, security and who may do what."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.ui_iot.guard import ROLES_MEMBER
from services.ui_iot.problems import MEDIA_TYPE, UNREADABLE

_DESCRIPTION = """
Alerting for fleets of IoT devices.

Devices send readings to `POST /ingest/v1/readings`; rules turn readings into alerts; routes lead alerts to channels.
Every response carries `X-Trace-ID`; send one (32 hexadecimal digits, a UUID, or a W3C `traceparent`) to choose it.
Lists come in pages: pass `next_cursor` back as `cursor` until it is null. Every error is `application/problem+json`.
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
            "description": "Why the caller is not let in: missing_token, invalid_token, token_too_large, expired, "
            "invalid_claims, unknown_key, auth_unavailable, rate_limited, forbidden, or audit_unavailable when it "
            "cannot be recorded.",
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
    "deviceToken": {"type": "http", "scheme": "bearer", "description": "pdt_…, shown once when a device is created."},
}

_PROBLEMS: dict[int, tuple[str, str, str]] = {
    400: ("Bad Request", UNREADABLE, ""),
    401: ("Unauthorized", "The token has expired.", "expired"),
    403: ("Forbidden", "This needs one of the roles admin.", "forbidden"),
    404: ("Not Found", "There is no such thing.", ""),
    409: ("Conflict", "It exists already, or something still uses it.", ""),
    413: ("Content Too Large", "The body may have 65536 bytes.", ""),
    415: ("Unsupported Media Type", "The body must come without Content-Encoding.", ""),
    422: ("Unprocessable Content", "The request does not have the form that is expected.", ""),
    429: ("Too Many Requests", "Too many failed attempts.", "rate_limited"),
    500: ("Internal Server Error", "Something went wrong here; the trace id finds it in our log.", ""),
    503: ("Service Unavailable", "The database is not available.", ""),
}
# Any request that is let in can meet these.
_COMMON = (401, 403, 422, 429, 500, 503)
# Any request with a body can meet these too.
_OF_BODIES = (400, 413, 415)


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
            made = get_openapi(title="Pulse", version=version, description=_DESCRIPTION, routes=app.routes)
            components = made.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
            components["securitySchemes"] = _SECURITY_SCHEMES
            for operation in _operations(made):
                if "requestBody" in operation:
                    answers = {**operation["responses"], **{str(status): _describe(status) for status in _OF_BODIES}}
                    operation["responses"] = dict(sorted(answers.items()))
                roles = operation.get(ROLES_MEMBER)
                if roles:
                    said = operation.get("description", "")
                    operation["description"] = f"{said}\n\nRoles: {', '.join(roles)}.".strip()
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]
