"""The HTTP API as an ASGI application, put together from its parts."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from services.shared import otlp
from services.shared.server import program_version, status_routes
from services.ui_iot.backend import Backend
from services.ui_iot.middleware.auth import PROBE_PATHS, AuthMiddleware
from services.ui_iot.middleware.body_limit import BodyLimitMiddleware
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.middleware.trace import TraceMiddleware
from services.ui_iot.openapi import install_openapi
from services.ui_iot.problems import install_problem_handlers
from services.ui_iot.routes import (
    alert_story,
    alerts,
    audit,
    audit_tail,
    auth,
    channels,
    deliveries,
    devices,
    escalation_policies,
    ingest,
    notification_routes,
    rules,
    traces,
)

ROUTERS = (
    ingest.router,
    alerts.router,
    alert_story.router,
    devices.router,
    rules.router,
    channels.router,
    notification_routes.router,
    escalation_policies.router,
    deliveries.router,
    audit.router,
    audit_tail.router,
    traces.router,
    auth.router,
)


def create_api(backend: Backend) -> FastAPI:
    """The routes behind authentication, without trace ids and measurement.

    /docs loads its scripts from a public CDN; /openapi.json needs nothing from outside.
    """
    # A redirect to the path without its slash would be built from the Host that the client claims.
    api = FastAPI(
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        # Small devices leave Content-Type out; the check of Sec-Fetch-Site and Origin keeps foreign pages away.
        # Versions that do not know the option always take such a body as JSON.
        strict_content_type=False,
        # FastAPI versions that make no spans of their own take it and do nothing.
        telemetry={
            "tracer_provider": otlp.tracer_provider(),
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in PROBE_PATHS,
        },
    )
    api.state.backend = backend
    # The last one added is the first one met.
    api.add_middleware(BodyLimitMiddleware, ingest_bytes=backend.settings.ingest_max_body_bytes, budget=backend.bodies)
    api.add_middleware(
        AuthMiddleware,
        authenticator=backend.authenticator,
        audit=backend.audit,
        metrics=backend.process.metrics,
    )
    install_problem_handlers(api)
    for router in ROUTERS:
        api.include_router(router)
    api.router.routes.extend(status_routes(backend.process))
    install_openapi(api, version=program_version())
    return api


def create_app(backend: Backend) -> ASGIApp:
    """The whole application. Tracing wraps it from outside: the response made for a crash has its trace id too."""
    api = create_api(backend)
    return TraceMiddleware(
        api,
        metrics=backend.process.metrics,
        templates=PathTemplates(api.routes),
        unmeasured=PROBE_PATHS,
        trust_incoming_trace=backend.settings.trust_incoming_trace,
    )


def _operation_id(route: APIRoute) -> str:
    """The function's name: stable while paths and methods move."""
    return route.name
