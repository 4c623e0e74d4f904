"""The identity providers of the process: their keys, token checks and token endpoints."""

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
from services.ui_iot.auth.key_sources import JwksFile, JwksUrl
from services.ui_iot.auth.oidc import Issuer
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.user_tokens import TokenCheck, TokensByIssuer, UserTokens

log = logging.getLogger(__name__)

# Time between two checks for keys that are old or whose last fetch failed.
RENEW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Providers:
    """The configured issuers. users: None if there is none."""

    users: TokenCheck | None
    token_endpoints: Mapping[str, Issuer]
    """Issuers that exchange refresh tokens, by name."""
    keys: Sequence[Jwks]

    def health(self) -> list[dict[str, Any]]:
        """Return the members of /health about the issuers."""
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
    """State of the issuers' keys at a scrape. The label is the configured issuer, never a text of a client."""

    def __init__(self, keys: Sequence[Jwks]) -> None:
        self._keys = keys

    def collect(self) -> Iterator[Metric]:
        """Yield the age of each issuer's keys and whether the last fetch failed."""
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
    """Fetch the keys of all issuers that answer, and renew the keys until the context ends."""
    if not entries:
        log.warning(
            "no issuer of user tokens: set PULSE_OIDC_ISSUER, or PULSE_JWT_ISSUER with PULSE_JWKS_URL or"
            " PULSE_JWKS_FILE, or PULSE_OIDC_ISSUERS_FILE; until then only device tokens and API keys are accepted"
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
    """Renew keys even without requests, so that /health and the metrics show the present state."""
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


def _key_source(entry: IssuerEntry, client: httpx.AsyncClient, issuer: Issuer) -> JwksFile | JwksUrl | Issuer:
    if entry.jwks_file is not None:
        return JwksFile(entry.jwks_file)
    return issuer if entry.jwks_url is None else JwksUrl(client, entry.jwks_url)
