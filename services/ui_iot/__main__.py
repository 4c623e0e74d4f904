"""Run the HTTP API: python -m services.ui_iot."""

import asyncio
import gc
import logging
from collections.abc import Mapping, Sequence

from services.shared import worker
from services.shared.audit import AuditLogger, open_audit_logger
from services.shared.db import Pool
from services.shared.http_client import traced_client
from services.shared.metrics import ProcessMetrics
from services.shared.process import record_process, run_until_stopped, stop_on_signals
from services.shared.server import Process, serve_process
from services.shared.settings import UiSettings
from services.ui_iot.app import create_app
from services.ui_iot.audit.tails import Tails
from services.ui_iot.auth.api_keys import ApiKeys
from services.ui_iot.auth.authenticator import Authenticator
from services.ui_iot.auth.client_address import ClientAddress
from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.auth.failure_limit import FailureLimit
from services.ui_iot.auth.issuers import IssuerEntry, load_issuers
from services.ui_iot.auth.oidc import Issuer
from services.ui_iot.auth.providers import ProviderGauges, open_providers
from services.ui_iot.auth.refresh_gate import RefreshGate
from services.ui_iot.auth.revocations import Revocations
from services.ui_iot.auth.user_tokens import TokenCheck
from services.ui_iot.backend import Backend, pool_of
from services.ui_iot.limits.body_budget import BodyBudget
from services.ui_iot.limits.limit_refusals import LimitRefusals
from services.ui_iot.limits.turns import Timelines
from services.ui_iot.resources.channel_sealing import report_protection

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
    """Return the objects that the routes work with."""

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


async def run(settings: UiSettings, issuers: Sequence[IssuerEntry]) -> None:
    """Serve until SIGTERM, then answer the open requests and store all audit events."""
    stop = stop_on_signals()
    process = Process(settings=settings, metrics=ProcessMetrics(settings.service))
    async with (
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
        report_protection(process, settings.secrets_key_file)
        process.metrics.registry.register(ProviderGauges(providers.keys))
        backend = make_backend(process, settings, audit=audit, users=providers.users, issuers=providers.token_endpoints)
        ready = asyncio.Event()
        serving = serve_process(process, create_app(backend), stop=stop, shared=ready if settings.reuse_port else None)
        server = asyncio.create_task(serving, name="server")
        server.add_done_callback(lambda _task: stop.set())  # a process without its port must end
        try:
            await _work(process, stop, ready)
        finally:
            process.stopping = True
            stop.set()
            await server
            await backend.refusals.stop()
            if process.pool is not None:
                process.pool.terminate()


async def _work(process: Process, stop: asyncio.Event, ready: asyncio.Event) -> None:
    process.pool = await worker.connect(process, stop)
    if process.pool is None:
        return
    process.metrics.watch_pool(process.pool)
    process.ready = True
    ready.set()
    # Imported objects stay forever. A collection over them would take 0.2 s, during which no request is answered.
    gc.freeze()
    await record_process(process, "started")
    log.info("started")
    await stop.wait()
    log.info("stopping")
    await record_process(process, "stopped")


def main() -> None:
    """Read the settings and the issuers, then run until stopped."""
    settings = UiSettings.load()
    run_until_stopped(settings, run(settings, load_issuers(settings, service=settings.service)))


if __name__ == "__main__":
    main()
