"""Receiver of the demo's webhooks, which checks each signature and shows the requests.

    python -m services.local.demo.sink --port 8087

POST /hooks/<name>   204 if the Standard Webhooks signature is valid, else 401
GET  /received       received requests, newest first; parameters trace_id and limit
"""

import argparse
import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import signal
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from services.shared import logging as json_logging
from services.shared import tracing
from services.shared.server import serve

log = logging.getLogger("services.local.demo.sink")

KEPT_REQUESTS = 500
LONGEST_BODY_BYTES = 1_000_000
TOLERANCE_SECONDS = 300
"""Largest difference between the signature's time and ours, as in the Standard Webhooks libraries."""


def signature_fault(headers: dict[str, str], body: bytes, *, secret: str, now: float) -> str | None:
    """Return the fault of a signature by https://www.standardwebhooks.com, None if it is valid."""
    message_id, sent_at = headers.get("webhook-id"), headers.get("webhook-timestamp")
    signatures = headers.get("webhook-signature", "")
    if not message_id or not sent_at or not signatures:
        return "unsigned"
    if not sent_at.isdigit() or abs(now - int(sent_at)) > TOLERANCE_SECONDS:
        return "webhook-timestamp is too far from now"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = message_id.encode() + b"." + sent_at.encode() + b"." + body
    expected = hmac.digest(key, signed, hashlib.sha256)
    for signature in signatures.split():
        version, _, encoded = signature.partition(",")
        try:
            if version == "v1" and hmac.compare_digest(base64.b64decode(encoded, validate=True), expected):
                return None
        except binascii.Error:
            continue
    return "wrong signature"


def create_app(secret: str) -> Starlette:
    """Return the receiver, which keeps received requests in memory."""
    received: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)

    async def receive(request: Request) -> Response:
        body = await request.body()
        if len(body) > LONGEST_BODY_BYTES:
            return PlainTextResponse("too large\n", status_code=413)
        headers = dict(request.headers)
        fault = signature_fault(headers, body, secret=secret, now=time.time())
        with tracing.use(tracing.from_headers(request.headers.raw)):
            log.info("received", extra={"path": request.url.path, "verified": fault is None, "fault": fault})
        received.appendleft(
            {
                "received_at": datetime.now(UTC).isoformat(),
                "path": request.url.path,
                "verified": fault is None,
                "fault": fault,
                "headers": headers,
                "body": _decoded(body),
            }
        )
        return Response(status_code=204) if fault is None else PlainTextResponse(fault + "\n", status_code=401)

    async def show(request: Request) -> Response:
        trace_id = request.query_params.get("trace_id")
        limit = request.query_params.get("limit", "50")
        if not limit.isdigit():
            return PlainTextResponse("limit is not a number\n", status_code=400)
        chosen = [one for one in received if trace_id in (None, one["headers"].get("x-trace-id"))]
        body = orjson.dumps({"received": chosen[: int(limit)]}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return Response(body, media_type="application/json")

    async def ready(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[
            Route("/hooks/{name}", receive, methods=["POST"]),
            Route("/received", show),
            Route("/readyz", ready),
        ]
    )


def _decoded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")


async def _run(port: int, secret: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(create_app(secret), host="127.0.0.1", port=port, stop=stop)


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m services.local.demo.sink", description=__doc__)
    parser.add_argument("--port", type=int, default=8087)
    port = parser.parse_args().port
    secret = os.environ.get("PULSE_SINK_SECRET")
    if not secret:
        print("sink: set PULSE_SINK_SECRET to the secret (whsec_…) that senders sign with", file=sys.stderr)
        return 2
    json_logging.configure("sink")
    asyncio.run(_run(port, secret))
    return 0


if __name__ == "__main__":
    sys.exit(main())
