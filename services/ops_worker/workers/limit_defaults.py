"""Default limits of tenants, stored once at the start of the process."""

from collections.abc import Mapping

from services.ops_worker.acting import act_as_system
from services.shared.db import Pool


class LimitDefaults:
    """Stores the defaults once, so that processes with different settings do not overwrite each other repeatedly."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits: Mapping[str, int] | None = limits

    async def store(self, pool: Pool) -> int:
        """Store the defaults at the first call. Return 0."""
        if self._limits is not None:
            async with act_as_system(pool) as connection:
                await connection.execute("select ops.set_default_limits($1)", self._limits)
            self._limits = None
        return 0
