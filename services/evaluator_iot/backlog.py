"""The tenants that are evaluated apart: they have more work than their share, or their passes fail."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.evaluator_iot.work_share import WorkShare
from services.shared.backoff import backoff_seconds

MOST_TENANTS = 64
"""Maximum of tenants in the backlog. Passes over the others step over each; further busy tenants stay with them."""

FAILURES_TO_REPORT = 3


@dataclass(slots=True)
class BusyTenant:
    """A tenant of the backlog: the share its passes get, its failures in a row, and when it may be tried again.

    weight: passes in a row that make one turn. passes: those of the current turn.
    """

    tenant_id: str
    share: WorkShare
    weight: int = 1
    passes: int = 0
    failures: int = 0
    due_at: float = 0.0


class Backlog:
    """Busy tenants in turn."""

    def __init__(self, *, slow_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._slow_seconds = slow_seconds
        self._clock = clock
        self._tenants: OrderedDict[str, BusyTenant] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tenants)

    def __iter__(self) -> Iterator[BusyTenant]:
        return iter(self._tenants.values())

    def tenant_ids(self) -> list[str]:
        """Return the tenants, the next one first."""
        return list(self._tenants)

    def failing(self) -> int:
        """Return the number of tenants with three or more failed passes in a row."""
        return sum(tenant.failures >= FAILURES_TO_REPORT for tenant in self._tenants.values())

    def add(self, tenant_ids: Iterable[str]) -> None:
        """Append tenants while there is room."""
        for tenant_id in tenant_ids:
            if len(self._tenants) < MOST_TENANTS and tenant_id not in self._tenants:
                self._tenants[tenant_id] = BusyTenant(tenant_id, WorkShare(self._slow_seconds))

    def next(self) -> BusyTenant | None:
        """Return the tenant whose turn it is, or None if none may be tried now. The last pass of a turn moves it."""
        now = self._clock()
        for tenant_id, tenant in self._tenants.items():
            if tenant.due_at <= now:
                tenant.passes += 1
                if tenant.passes >= tenant.weight:
                    tenant.passes = 0
                    self._tenants.move_to_end(tenant_id)
                return tenant
        return None

    def pass_ended(self, tenant: BusyTenant, *, seconds: float, has_more: bool, weight: int = 1) -> None:
        """Adapt the tenant's share and weight, and remove it if it has no further work."""
        tenant.weight = weight
        tenant.failures = 0
        tenant.share.pass_ended(seconds)
        if not has_more:
            del self._tenants[tenant.tenant_id]

    def pass_failed(self, tenant: BusyTenant) -> None:
        """Give the tenant less work and a pause that doubles, so that its failures cost the other tenants little."""
        tenant.failures += 1
        tenant.share.pass_failed()
        tenant.due_at = self._clock() + backoff_seconds(tenant.failures)
