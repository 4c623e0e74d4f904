"""Limits on the size of a request's body and address, and the refusal of encoded bodies."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ui_iot.auth.request_context import find_context
from services.ui_iot.http.problems import TooLarge, problem
from services.ui_iot.limits.body_budget import BodyBudget, Hold

# The largest resource is an escalation policy of 20 steps: 2 KB.
SMALL_BYTES = 64 * 1024
# The longest query has a list's filters and a cursor: 2 KB.
LONGEST_ADDRESS_BYTES = 8192
INGEST_PREFIX = "/ingest/"
_SETTING = " (PULSE_INGEST_MAX_BODY_BYTES)"


class BodyLimitMiddleware:
    """Refuses a body by its announced length, or while it arrives if the length is missing or wrong."""

    def __init__(self, app: ASGIApp, *, ingest_bytes: int, budget: BodyBudget) -> None:
        self.app = app
        self._ingest_bytes = ingest_bytes
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a bounded body, or refuse it."""
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_ADDRESS_BYTES:
            detail = f"Path and query may have {LONGEST_ADDRESS_BYTES} bytes."
            await problem(414, detail)(scope, receive, send)
            return
        # A compressed body could unpack to a thousand times its size.
        if any(
            name == b"content-encoding" and value.strip().lower() != b"identity" for name, value in scope["headers"]
        ):
            detail = "The body must come without Content-Encoding."
            await problem(415, detail, headers={"Accept-Encoding": "identity"})(scope, receive, send)
            return
        most = self._ingest_bytes if scope["path"].startswith(INGEST_PREFIX) else SMALL_BYTES
        detail = f"The body may have {most} bytes{_SETTING if most == self._ingest_bytes else ''}."
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced[:20]) > most:
            # No Connection: close. A client that still sends would see a reset instead of the answer.
            await problem(413, detail)(scope, receive, send)
            return
        context = find_context(scope)
        taken = 0
        hold: Hold | None = None

        async def bounded() -> Message:
            nonlocal taken, hold
            message = await receive()
            count = len(message.get("body", b""))
            taken += count
            if taken > most:
                raise TooLarge(detail)
            if taken > SMALL_BYTES:
                # Short bodies are not counted: the number of connections bounds them.
                if hold is None:
                    hold, count = self._budget.hold(context.principal if context is not None else None), taken
                hold.grow(count)
            return message

        try:
            await self.app(scope, bounded, send)
        finally:
            if hold is not None:
                hold.release()
