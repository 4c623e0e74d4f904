"""The identity providers of the running process: their keys, checks of their tokens, their token endpoints."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.ui_iot.auth.issuers import IssuerEntry
from services.ui_iot.auth.jwks import Jwks
from services.ui_iot.auth.oidc import Issuer, KeyFile, KeyUrl
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.user_tokens import TokenCheck, TokensByIssuer, UserTokens

log = logging.getLogger(__name__)

# Time between two checks whether keys are old, or the last look at them failed.
RENEW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Providers:
    """What the process knows of its issuers. users: None when no issuer is configured."""

    users: TokenCheck | None
    token_endpoints: Mapping[str, Issuer]
    """By issuer: where refresh tokens are exchanged."""
    keys: Sequence[Jwks]

    def health(self) -> list[dict[str, Any]]:
        """Return what /health shows of the issuers."""
        return [self._describe(keys) for keys in self.keys]

    def _describe(self, keys: Jwks) -> dict[str, Any]:
        endpoint = self.token_endpoints.get(keys.issuer)
        return {
            "issuer": keys.issuer,
            "usable_keys": keys.usable_keys,
            "keys_age_seconds": None if keys.age_seconds is None else round(keys.age_seconds, 3),
            "failing": keys.failing,
            "fault": keys.faults.newest,
            "refresh_fault": endpoint.faults.newest if endpoint is not None else None,
        }


class ProviderGauges(Collector):
    """The state of the issuers' keys at a scrape. The label is the configured issuer, never a client's text."""

    def __init__(self, keys: Sequence[Jwks]) -> None:
        self._keys = keys

    def collect(self) -> Iterator[Metric]:
        """Age of the keys, and whether the last look failed."""
        age = GaugeMetricFamily(
            "pulse_oidc_keys_age_seconds",
            "Seconds since the issuer's keys were last fetched; no sample before the first success.",
            labels=["issuer"],
        )
        failing = GaugeMetricFamily(
            "pulse_oidc_failing",
            "Processes that failed at their last look for the issuer's keys; /health and the log name the fault.",
            labels=["issuer"],
        )
        for keys in self._keys:
            if keys.age_seconds is not None:
                age.add_metric([keys.issuer], keys.age_seconds)
            failing.add_metric([keys.issuer], keys.failing)
        yield age
        yield failing


@asynccontextmanager
async def open_providers(
    entries: Sequence[IssuerEntry], client: httpx.AsyncClient, *, max_token_bytes: int, max_token_seconds: float
) -> AsyncIterator[Providers]:
    """Fetch the keys of all issuers, as far as they answer, and renew them until the end."""
    if not entries:
        log.warning(
            "no issuer of user tokens: set PULSE_OIDC_ISSUER, or PULSE_JWT_ISSUER with PULSE_JWKS_URL or"
            " PULSE_JWKS_FILE, or PULSE_OIDC_ISSUERS_FILE; until then only devices are let in"
        )
        yield Providers(None, {}, ())
        return
    issuers = {entry.issuer: _make_issuer(entry, client) for entry in entries}
    keys = {
        entry.issuer: Jwks(_key_source(entry, client, issuers[entry.issuer]), issuer=entry.issuer) for entry in entries
    }
    checks = {
        entry.issuer: UserTokens(
            keys[entry.issuer],
            TokenVerifier(entry.trust(max_token_bytes=max_token_bytes, max_token_seconds=max_token_seconds)),
        )
        for entry in entries
    }
    await asyncio.gather(*(each.newer() for each in keys.values()))
    renewing = asyncio.create_task(_renew(tuple(keys.values())), name="renew-keys")
    only = next(iter(checks.values())) if len(checks) == 1 else None
    try:
        yield Providers(
            users=only or TokensByIssuer(checks, max_token_bytes=max_token_bytes),
            token_endpoints={entry.issuer: issuers[entry.issuer] for entry in entries if entry.client_id is not None},
            keys=tuple(keys.values()),
        )
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, *(each.close() for each in keys.values()), return_exceptions=True)


async def _renew(keys: Sequence[Jwks]) -> None:
    """Look for newer keys also while no token asks for them, so that /health and metrics show the present state."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        for each in keys:
            each.current()


def _make_issuer(entry: IssuerEntry, client: httpx.AsyncClient) -> Issuer:
    secret = entry.client_secret
    return Issuer(
        client,
        entry.discovery or entry.issuer,
        issuer=entry.issuer,
        client_id=entry.client_id or "",
        client_secret=secret.get_secret_value() if secret else None,
        client_auth=entry.client_auth,
    )


def _key_source(entry: IssuerEntry, client: httpx.AsyncClient, issuer: Issuer) -> KeyFile | KeyUrl | Issuer:
    if entry.jwks_file is not None:
        return KeyFile(entry.jwks_file)
    return issuer if entry.jwks_url is None else KeyUrl(client, entry.jwks_url)
