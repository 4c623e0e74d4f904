"""The outermost layer of the API: trace id in and out, one log line and one duration for each request.

Hand-written, because every request pays for it: `pulse bench http` measures the cost.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from services.shared import tracing
from services.shared.metrics import ProcessMetrics
from services.ui_iot.middleware.exchange import Exchange
from services.ui_iot.middleware.http_meter import HttpMeter
from services.ui_iot.middleware.path_template import PathTemplates


class TraceMiddleware:
    """Wraps the whole application. `unmeasured` has the probes' paths, which are traced but not logged or counted."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: ProcessMetrics,
        templates: PathTemplates,
        unmeasured: frozenset[str],
        trust_incoming_trace: bool = True,
    ) -> None:
        self.app = app
        self._trust = trust_incoming_trace
        self._meter = HttpMeter(metrics, templates=templates, unmeasured=unmeasured)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request within its trace."""
        exchange = Exchange(self._meter, scope, send, trust=self._trust)
        token = tracing.enter(exchange.context)
        try:
            await self.app(scope, receive, exchange.send)
        except BaseException as error:
            exchange.error = error
            # After a complete response the server needs no error, and the failed code has logged its own.
            if not exchange.complete or not isinstance(error, Exception):
                raise
        finally:
            exchange.finish()
            tracing.leave(token)
