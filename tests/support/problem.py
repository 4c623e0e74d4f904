"""The form of an error answer (RFC 9457)."""

from typing import Any

import httpx

PROBLEM = {"type", "title", "status", "detail", "trace_id"}


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Check form and headers of a problem and return its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body.keys() >= PROBLEM
    assert body["status"] == status
    assert body["trace_id"] == response.headers["x-trace-id"]
    assert body["type"].startswith("urn:pulse:problem:")
    return body
