"""The HTTP API as an ASGI application, put together from its parts."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from services.shared import otlp
from services.shared.server import hosts_of, program_version, status_routes
from services.shared.web import PROBE_PATHS, HostCheck, SecureHeaders, has_path
from services.ui_iot.backend import Backend
from services.ui_iot.docs_page import docs_routes
from services.ui_iot.http.problem_handlers import install_problem_handlers
from services.ui_iot.middleware.auth import AuthMiddleware
from services.ui_iot.middleware.body_limit import BodyLimitMiddleware
from services.ui_iot.middleware.forwarded_scheme import ForwardedScheme
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.middleware.request_limit import RequestLimitMiddleware
from services.ui_iot.middleware.trace import TraceMiddleware
from services.ui_iot.openapi import install_openapi
from services.ui_iot.routes import (
    alert_story,
    alerts,
    api_keys,
    audit,
    audit_tail,
    auth,
    channels,
    deliveries,
    devices,
    escalation_policies,
    ingest,
    notification_routes,
    revocations,
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
    api_keys.router,
    revocations.router,
    auth.router,
)


def create_api(backend: Backend) -> FastAPI:
    """Return the routes behind authentication, without trace ids and measurement."""
    # A redirect to the path without its slash would contain the Host header of the client.
    api = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if backend.settings.serve_docs else None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        # Small devices omit Content-Type. The check of Sec-Fetch-Site and Origin refuses foreign pages. Versions
        # without the option always read such a body as JSON.
        strict_content_type=False,
        # FastAPI versions without spans accept the argument and ignore it.
        telemetry={
            "tracer_provider": otlp.tracer_provider(),
            "operation_spans": False,
            "exclude": lambda scope: has_path(scope, PROBE_PATHS),
        },
    )
    api.state.backend = backend
    # The layer added last is the outermost.
    api.add_middleware(BodyLimitMiddleware, ingest_bytes=backend.settings.ingest_max_body_bytes, budget=backend.bodies)
    api.add_middleware(
        RequestLimitMiddleware,
        per_principal=backend.settings.requests_per_principal,
        per_tenant=backend.settings.requests_per_tenant,
        refusals=backend.refusals,
    )
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
    if backend.settings.serve_docs:
        api.router.routes.extend(docs_routes())
    return api


def create_app(backend: Backend) -> ASGIApp:
    """Return the whole application.

    Tracing wraps the routes, so that even the response to a crash has its trace id. The headers are outermost.
    """
    api = create_api(backend)
    settings = backend.settings
    app: ASGIApp = HostCheck(api, hosts_of(settings))
    if settings.trusted_proxies:
        app = ForwardedScheme(app, backend.authenticator.addresses)
    traced = TraceMiddleware(
        app,
        metrics=backend.process.metrics,
        templates=PathTemplates(api.routes),
        unmeasured=PROBE_PATHS,
        trust_incoming_trace=settings.trust_incoming_trace,
    )
    return SecureHeaders(traced)


def _operation_id(route: APIRoute) -> str:
    """Return the function's name, which stays stable when paths and methods change."""
    return route.name
