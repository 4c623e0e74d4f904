"""Limits on the bytes of large request bodies in memory: for the process, each tenant and each caller."""

from collections import Counter

from services.ui_iot.auth.principal import Principal
from services.ui_iot.http.problems import Overloaded

_Owner = tuple[str, ...]


class BodyBudget:
    """Counts the bytes of request bodies from their arrival until the request is answered."""

    def __init__(self, *, most: int, most_of_caller: int) -> None:
        self._most = most
        self._most_of_caller = most_of_caller
        self._held: Counter[_Owner] = Counter()

    @property
    def held(self) -> int:
        """Bytes that all requests hold."""
        return self._held[()]

    def hold(self, principal: Principal | None) -> "Hold":
        """Return the empty hold of one request. All requests without a caller share one account."""
        if principal is None:
            return Hold(self, ((), ("",), ("", "")))
        tenant, actor = principal.tenant_id, principal.actor
        return Hold(self, ((), (tenant,), (tenant, f"{actor.type} {actor.id}")))

    def take(self, owners: tuple[_Owner, ...], count: int) -> None:
        """Count bytes for the process, a tenant and a caller. Raises Overloaded."""
        process, tenant, caller = owners
        if self._held[caller] + count > self._most_of_caller:
            detail = f"Requests of this caller may hold {self._most_of_caller} bytes (PULSE_BODY_BYTES_PER_CALLER)."
            raise Overloaded(429, detail)
        if self._held[tenant] + count > self._most // 2:
            detail = f"Requests of this tenant may hold {self._most // 2} bytes (half of PULSE_BODY_BYTES_IN_FLIGHT)."
            raise Overloaded(429, detail)
        if self._held[process] + count > self._most:
            raise Overloaded(503, f"Requests hold {self._most} bytes already (PULSE_BODY_BYTES_IN_FLIGHT).")
        for owner in owners:
            self._held[owner] += count

    def give_back(self, owners: tuple[_Owner, ...], count: int) -> None:
        """Release bytes of all owners."""
        for owner in owners:
            self._held[owner] -= count
            if self._held[owner] <= 0:
                del self._held[owner]


class Hold:
    """The bytes that one request holds."""

    __slots__ = ("_budget", "_bytes", "_owners")

    def __init__(self, budget: BodyBudget, owners: tuple[_Owner, ...]) -> None:
        self._budget = budget
        self._owners = owners
        self._bytes = 0

    def grow(self, count: int) -> None:
        """Hold further bytes. Raises Overloaded."""
        self._budget.take(self._owners, count)
        self._bytes += count

    def release(self) -> None:
        """Release all bytes."""
        self._budget.give_back(self._owners, self._bytes)
        self._bytes = 0
