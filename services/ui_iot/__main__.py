"""Run the HTTP API: python -m services.ui_iot."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx

from services.shared import logging as json_logging
from services.shared import worker
from services.shared.audit import AuditLogger, open_audit_logger
from services.shared.http_client import traced_client
from services.shared.metrics import ProcessMetrics
from services.shared.server import (
    Process,
    bind_process,
    record_process,
    run_until_stopped,
    serve_process,
    stop_on_signals,
    told_in_one_line,
)
from services.shared.settings import UiIot
from services.ui_iot.app import create_app
from services.ui_iot.audit_tails import Tails
from services.ui_iot.authenticator import Authenticator
from services.ui_iot.backend import Backend, pool_of
from services.ui_iot.client_address import ClientAddress
from services.ui_iot.device_tokens import DeviceTokens
from services.ui_iot.jwks import Jwks
from services.ui_iot.oidc import Issuer, KeyFile, KeyUrl
from services.ui_iot.rate_limit import FailureLimit
from services.ui_iot.refresh_gate import RefreshGate
from services.ui_iot.tokens import TokenVerifier
from services.ui_iot.user_tokens import UserTokens
from services.ui_iot.workers.member import Member
from services.ui_iot.workers.parent import Parent

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
    limit = FailureLimit(settings.auth_rate_limit_per_minute)
    authenticator = Authenticator(
        addresses=ClientAddress(settings.trusted_proxies),
        limit=limit,
        devices=DeviceTokens(lambda: pool_of(process), remember_seconds=settings.device_cache_seconds),
        users=users,
    )
    return Backend(
        settings=settings,
        process=process,
        audit=audit,
        authenticator=authenticator,
        issuer=issuer,
        tails=Tails(process, most=settings.audit_max_tails),
        refreshes=RefreshGate(limit),
    )


async def run(settings: UiIot, *, member: Member | None = None, sockets: list[socket.socket] | None = None) -> None:
    """Serve until SIGTERM; requests in hand are answered and audit events stored before the return.

    member and sockets: those of one of several workers.
    """
    stop = stop_on_signals()
    process = make_process(settings, member)
    async with (
        contextlib.nullcontext() if member is None else member.answering(),
        traced_client(trusted=True) as client,
        open_audit_logger(settings, registry=process.metrics.registry) as audit,
    ):
        issuer = make_issuer(settings, client)
        async with open_user_tokens(settings, client, issuer) as users:
            app = create_app(make_backend(process, settings, audit=audit, users=users, issuer=issuer))
            server = asyncio.create_task(serve_process(process, app, stop=stop, sockets=sockets), name="server")
            server.add_done_callback(lambda _task: stop.set())  # without its port the process must not linger
            try:
                await _work(process, settings, stop, member)
            finally:
                process.stopping = True
                stop.set()
                await server
                if process.pool is not None:
                    process.pool.terminate()


def make_process(settings: UiIot, member: Member | None) -> Process:
    """The process; as one of several its metrics are those of all, and it is ready when all are."""
    if member is None:
        return Process(settings=settings, metrics=ProcessMetrics(settings.service))
    metrics = ProcessMetrics(settings.service, member.registry, member.refresh)
    return Process(settings=settings, metrics=metrics, others=member.slots.fault)


async def _work(process: Process, settings: UiIot, stop: asyncio.Event, member: Member | None) -> None:
    process.pool = await worker.connect(settings, stop)
    if process.pool is None:
        return
    process.metrics.watch_pool(process.pool)
    process.ready = True
    if member is not None:
        member.slots.note_ready(member.number)
    await record_process(process, "started")
    log.info("started", extra={} if member is None else {"worker": member.number})
    await stop.wait()
    log.info("stopping")
    await record_process(process, "stopped")


def run_worker(settings: UiIot, sockets: list[socket.socket], member: Member) -> int:
    """The life of one of several workers."""
    run_until_stopped(settings, run(settings, member=member, sockets=sockets))
    return 0


def main() -> None:
    """One process, or a parent with workers."""
    settings = UiIot.load()
    if settings.ui_workers == 1:
        run_until_stopped(settings, run(settings))
        return
    json_logging.configure(settings.service, settings.log_level)
    with told_in_one_line():
        sockets = bind_process(settings)
    parent = Parent(settings.ui_workers, partial(run_worker, settings, sockets), sockets=sockets)
    raise SystemExit(parent.run())


if __name__ == "__main__":
    main()
