"""Run the HTTP API: python -m services.ui_iot."""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Mapping, Sequence
from functools import partial

from services.shared import logging as json_logging
from services.shared import worker
from services.shared.audit import AuditLogger, open_audit_logger
from services.shared.db import Pool
from services.shared.http_client import traced_client
from services.shared.metrics import ProcessMetrics
from services.shared.secret_box import protection, read_public_key
from services.shared.server import (
    Process,
    bind_process,
    record_process,
    run_until_stopped,
    serve_process,
    stop_on_signals,
    told_in_one_line,
)
from services.shared.settings import UiSettings
from services.ui_iot.app import create_app
from services.ui_iot.audit.tails import Tails
from services.ui_iot.auth.api_keys import ApiKeys
from services.ui_iot.auth.authenticator import Authenticator
from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.auth.issuers import IssuerEntry, load_issuers
from services.ui_iot.auth.oidc import Issuer
from services.ui_iot.auth.providers import ProviderGauges, open_providers
from services.ui_iot.auth.refresh_gate import RefreshGate
from services.ui_iot.auth.revocations import Revocations
from services.ui_iot.auth.user_tokens import TokenCheck
from services.ui_iot.backend import Backend, pool_of
from services.ui_iot.http.client_address import ClientAddress
from services.ui_iot.limits.body_budget import BodyBudget
from services.ui_iot.limits.failure_limit import FailureLimit
from services.ui_iot.limits.limit_refusals import LimitRefusals
from services.ui_iot.limits.turns import Timelines
from services.ui_iot.workers.member import Member
from services.ui_iot.workers.parent import Parent

log = logging.getLogger(__name__)

# A JWKS document with certificate chains may be long.
_MOST_PROVIDER_BYTES = 1_048_576


def make_backend(
    process: Process,
    settings: UiSettings,
    *,
    audit: AuditLogger,
    users: TokenCheck | None,
    issuers: Mapping[str, Issuer],
) -> Backend:
    """Return everything the routes work with."""

    def pool() -> Pool:
        return pool_of(process)

    limit = FailureLimit(settings.auth_rate_limit_per_minute)
    refusals = LimitRefusals(process)
    authenticator = Authenticator(
        addresses=ClientAddress(settings.trusted_proxies),
        limit=limit,
        accounts=FailureLimit(settings.auth_rate_limit_per_minute),
        devices=DeviceTokens(pool, remember_seconds=settings.device_cache_seconds),
        keys=ApiKeys(pool, remember_seconds=settings.device_cache_seconds),
        users=users,
        revocations=Revocations(pool),
    )
    return Backend(
        settings=settings,
        process=process,
        audit=audit,
        authenticator=authenticator,
        issuers=issuers,
        tails=Tails(process, most=settings.audit_max_tails, refusals=refusals),
        refreshes=RefreshGate(limit),
        refusals=refusals,
        timelines=Timelines(refusals),
        bodies=BodyBudget(most=settings.body_bytes_in_flight, most_of_caller=settings.body_bytes_per_caller),
    )


async def run(
    settings: UiSettings,
    issuers: Sequence[IssuerEntry],
    *,
    member: Member | None = None,
    sockets: list[socket.socket] | None = None,
) -> None:
    """Serve until SIGTERM; requests in hand are answered and audit events stored before the return.

    member and sockets: those of one of several workers.
    """
    stop = stop_on_signals()
    process = make_process(settings, member)
    async with (
        contextlib.nullcontext() if member is None else member.answering(),
        traced_client(trusted=True, max_body_bytes=_MOST_PROVIDER_BYTES, egress=settings.egress) as client,
        open_audit_logger(settings, registry=process.metrics.registry) as audit,
        open_providers(
            issuers,
            client,
            max_token_bytes=settings.oidc_max_token_bytes,
            max_token_seconds=settings.max_token_seconds,
        ) as providers,
    ):
        process.facts["identity_providers"] = providers.health
        _report_secrets(process, settings)
        process.metrics.registry.register(ProviderGauges(providers.keys))
        backend = make_backend(process, settings, audit=audit, users=providers.users, issuers=providers.token_endpoints)
        server = asyncio.create_task(
            serve_process(process, create_app(backend), stop=stop, sockets=sockets), name="server"
        )
        server.add_done_callback(lambda _task: stop.set())  # without its port the process must not linger
        try:
            await _work(process, stop, member)
        finally:
            process.stopping = True
            stop.set()
            await server
            await backend.refusals.stop()
            if process.pool is not None:
                process.pool.terminate()


def _report_secrets(process: Process, settings: UiSettings) -> None:
    file = settings.secrets_key_file
    stored = protection(None if file is None else read_public_key(file))
    process.facts["channel_secrets"] = lambda: stored
    if file is None:
        log.warning("channel secrets are stored as %s", stored)


def make_process(settings: UiSettings, member: Member | None) -> Process:
    """The process; as one of several its metrics are those of all, and it is ready when all are."""
    if member is None:
        return Process(settings=settings, metrics=ProcessMetrics(settings.service))
    metrics = ProcessMetrics(settings.service, member.registry, member.refresh)
    return Process(settings=settings, metrics=metrics, others=member.slots.fault)


async def _work(process: Process, stop: asyncio.Event, member: Member | None) -> None:
    process.pool = await worker.connect(process, stop)
    if process.pool is None:
        return
    process.metrics.watch_pool(process.pool)
    process.ready = True
    if member is not None:
        member.slots.note_ready(member.number)
    # What was imported stays for ever. Walking through it takes 0.2 s, in which nothing is answered.
    gc.freeze()
    await record_process(process, "started")
    log.info("started", extra={} if member is None else {"worker": member.number})
    await stop.wait()
    log.info("stopping")
    await record_process(process, "stopped")


def run_worker(
    settings: UiSettings, issuers: Sequence[IssuerEntry], sockets: list[socket.socket], member: Member
) -> int:
    """The life of one of several workers."""
    run_until_stopped(settings, run(settings, issuers, member=member, sockets=sockets))
    return 0


def main() -> None:
    """One process, or a parent with workers."""
    settings = UiSettings.load()
    issuers = load_issuers(settings, service=settings.service)
    if settings.ui_workers == 1:
        run_until_stopped(settings, run(settings, issuers))
        return
    json_logging.configure(settings.service, settings.log_level)
    with told_in_one_line():
        sockets = bind_process(settings)
    parent = Parent(settings.ui_workers, partial(run_worker, settings, issuers, sockets), sockets=sockets)
    raise SystemExit(parent.run())


if __name__ == "__main__":
    main()
