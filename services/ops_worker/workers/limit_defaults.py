"""Limits of tenants without limits of their own: the settings of this process, stored once at its start."""

from collections.abc import Mapping

from services.ops_worker.acting import act_as_system
from services.shared.db import Pool


class LimitDefaults:
    """Stores the defaults once, so that two processes with different settings do not change them back and forth."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits: Mapping[str, int] | None = limits

    async def store(self, pool: Pool) -> int:
        """Store the defaults unless that is done; always return 0, for nothing is left to do."""
        if self._limits is not None:
            async with act_as_system(pool) as connection:
                await connection.execute("select ops.set_default_limits($1)", self._limits)
            self._limits = None
        return 0
