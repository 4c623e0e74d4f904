"""Run the HTTP API: python -m services.ui_iot."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from services.shared import worker
from services.shared.audit import AuditLogger, open_audit_logger
from services.shared.http_client import traced_client
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, record_process, run_process, serve_process, stop_on_signals
from services.shared.settings import UiIot
from services.ui_iot.app import create_app
from services.ui_iot.audit_tails import Tails
from services.ui_iot.authenticator import Authenticator
from services.ui_iot.backend import Backend, pool_of
from services.ui_iot.client_address import ClientAddress
from services.ui_iot.device_tokens import DeviceTokens
from services.ui_iot.jwks import Jwks
from services.ui_iot.known_tokens import KnownTokens
from services.ui_iot.oidc import Issuer, KeyFile, KeyUrl
from services.ui_iot.rate_limit import FailureLimit
from services.ui_iot.tokens import TokenVerifier
from services.ui_iot.user_tokens import UserTokens

log = logging.getLogger(__name__)


def make_issuer(settings: UiIot, client: httpx.AsyncClient) -> Issuer | None:
    """The issuer that is found by discovery, None when none is configured."""
    if settings.oidc_issuer is None:
        return None
    secret = settings.oidc_client_secret
    return Issuer(
        client,
        settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=secret.get_secret_value() if secret else None,
    )


@asynccontextmanager
async def open_user_tokens(
    settings: UiIot, client: httpx.AsyncClient, issuer: Issuer | None
) -> AsyncIterator[UserTokens | None]:
    """The checks of user tokens with the keys fetched when they can be, None when nothing is configured."""
    source: KeyFile | KeyUrl | Issuer | None = issuer
    if settings.jwks_file is not None:
        source = KeyFile(settings.jwks_file)
    elif settings.jwks_url is not None:
        source = KeyUrl(client, settings.jwks_url)
    name = settings.jwt_issuer or settings.oidc_issuer
    if source is None or name is None:
        log.warning(
            "no issuer of user tokens: set PULSE_OIDC_ISSUER, or PULSE_JWT_ISSUER with PULSE_JWKS_URL or"
            " PULSE_JWKS_FILE; until then only devices are let in"
        )
        yield None
        return
    jwks = Jwks(source)
    await jwks.newer()
    try:
        yield UserTokens(jwks, TokenVerifier(issuer=name, audience=settings.oidc_audience))
    finally:
        await jwks.close()


def make_backend(
    process: Process, settings: UiIot, *, audit: AuditLogger, users: UserTokens | None, issuer: Issuer | None
) -> Backend:
    """Everything the routes work with."""
    authenticator = Authenticator(
        addresses=ClientAddress(settings.trusted_proxies),
        limit=FailureLimit(settings.auth_rate_limit_per_minute),
        known=KnownTokens(),
        devices=DeviceTokens(lambda: pool_of(process), remember_seconds=settings.device_cache_seconds),
        users=users,
    )
    tails = Tails(process, most=settings.audit_max_tails)
    return Backend(
        settings=settings, process=process, audit=audit, authenticator=authenticator, issuer=issuer, tails=tails
    )


async def run(settings: UiIot) -> None:
    """Serve until SIGTERM; requests in hand are answered and audit events stored before the return."""
    stop = stop_on_signals()
    process = Process(settings=settings, metrics=ProcessMetrics(settings.service))
    async with (
        traced_client(trusted=True) as client,
        open_audit_logger(settings, registry=process.metrics.registry) as audit,
    ):
        issuer = make_issuer(settings, client)
        async with open_user_tokens(settings, client, issuer) as users:
            app = create_app(make_backend(process, settings, audit=audit, users=users, issuer=issuer))
            server = asyncio.create_task(serve_process(process, app, stop=stop), name="server")
            server.add_done_callback(lambda _task: stop.set())  # without its port the process must not linger
            try:
                await _work(process, settings, stop)
            finally:
                process.stopping = True
                stop.set()
                await server
                if process.pool is not None:
                    process.pool.terminate()


async def _work(process: Process, settings: UiIot, stop: asyncio.Event) -> None:
    process.pool = await worker.connect(settings, stop)
    if process.pool is None:
        return
    process.metrics.watch_pool(process.pool)
    process.ready = True
    await record_process(process, "started")
    log.info("started")
    await stop.wait()
    log.info("stopping")
    await record_process(process, "stopped")


if __name__ == "__main__":
    run_process(UiIot, run)
