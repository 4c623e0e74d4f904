"""Answers of the server itself, as problem+json with a trace id."""

import orjson

from services.shared import tracing
from services.shared.web import headers_for

Headers = list[tuple[bytes, bytes]]

_RETRY_SECONDS = 2
_BUSY = (503, "Service Unavailable")


def problem(status: int, title: str, detail: str, *, scheme: str) -> tuple[str, Headers, bytes]:
    """Return trace id, headers and body of a problem that ends its connection."""
    trace_id = tracing.start().trace_id
    document = {
        "type": f"urn:pulse:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "trace_id": trace_id,
    }
    body = orjson.dumps(document)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-trace-id", trace_id.encode()),
        (b"connection", b"close"),
        *headers_for(scheme),
    ]
    return trace_id, headers, body


def busy_problem(scheme: str) -> tuple[Headers, bytes]:
    """Return headers and body of the answer to a request for which there is no place."""
    detail = "All connections are in use (PULSE_HTTP_MAX_CONNECTIONS, PULSE_HTTP_MAX_CONNECTIONS_PER_ADDRESS)."
    _, headers, body = problem(*_BUSY, detail, scheme=scheme)
    return [*headers, (b"retry-after", str(_RETRY_SECONDS).encode())], body


def busy_answer() -> bytes:
    """Return the same answer as bytes on a connection without TLS."""
    headers, body = busy_problem("http")
    lines = (b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (_BUSY[0], _BUSY[1].encode(), b"".join(lines), body)
