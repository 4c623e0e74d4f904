"""Ends the leases of delivery workers that vanished, so that their notifications are tried again."""

import logging
from dataclasses import dataclass

from services.shared.db import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseReaper:
    """A pass ends at most batch leases."""

    batch: int

    async def reap(self, pool: Pool) -> int:
        """One pass; the number of leases ended."""
        raise NotImplementedError
