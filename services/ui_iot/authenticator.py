"""Decides who a request comes from: the order of the checks, and what a failure costs its address."""

from dataclasses import dataclass, replace

import asyncpg
from starlette.types import Scope

from services.shared.db import UNAVAILABLE
from services.ui_iot.claimed_account import claimed_account
from services.ui_iot.client_address import Address, ClientAddress
from services.ui_iot.credentials import Headers, find_token
from services.ui_iot.device_tokens import PREFIX, DeviceTokens
from services.ui_iot.known_tokens import KnownTokens
from services.ui_iot.principal import Principal
from services.ui_iot.rate_limit import FailureLimit
from services.ui_iot.refusals import STATUS, Refusal
from services.ui_iot.user_tokens import UserTokens

_NO_ISSUER = Refusal("auth_unavailable", "No issuer of user tokens is configured.", retry_after_seconds=60)
_NO_DATABASE = Refusal("auth_unavailable", "Device tokens cannot be checked now.", retry_after_seconds=2)


@dataclass(frozen=True, slots=True)
class Authenticator:
    """The checks of a request's token, shared by all requests. users: None when no issuer is configured."""

    addresses: ClientAddress
    limit: FailureLimit
    known: KnownTokens
    devices: DeviceTokens
    users: UserTokens | None

    def address_of(self, scope: Scope, headers: Headers) -> Address | None:
        """Where the request comes from."""
        client = scope.get("client")
        return self.addresses.of(client[0] if client else None, headers.forwarded_for)

    async def authenticate(self, headers: Headers, address: Address | None, *, method: str) -> Principal | Refusal:
        """Who the request comes from. Its failure is charged to the address."""
        token = find_token(headers, method)
        result = await self._identify(token, address)
        if isinstance(result, Principal):
            assert isinstance(token, str)
            self.known.note(token)
            return result
        if STATUS[result.reason] == 401:
            self.limit.record_failure(address)
            if isinstance(token, str):
                self.known.forget(token)
        if isinstance(token, str) and result.actor is None:
            return replace(result, account=claimed_account(token))
        return result

    async def _identify(self, token: str | Refusal, address: Address | None) -> Principal | Refusal:
        wait_seconds = self.limit.wait_seconds(address)
        if isinstance(token, Refusal):
            return limited(wait_seconds) if wait_seconds else token
        known = self._remembered(token)
        if known is not None:
            return known
        if wait_seconds and not self.known.is_known(token):
            # Who was good lately is looked at again: a neighbour behind the same address must not lock it out.
            return limited(wait_seconds)
        if not token.startswith(PREFIX):
            return _NO_ISSUER if self.users is None else await self.users.check(token)
        try:
            return await self.devices.check(token)
        except (*UNAVAILABLE, asyncpg.PostgresError):
            return _NO_DATABASE

    def _remembered(self, token: str) -> Principal | None:
        if token.startswith(PREFIX):
            return self.devices.remembered(token)
        return None if self.users is None else self.users.remembered(token)


def limited(wait_seconds: int) -> Refusal:
    """The refusal of an address with too many failures."""
    return Refusal("rate_limited", "Too many failed attempts.", retry_after_seconds=wait_seconds)
