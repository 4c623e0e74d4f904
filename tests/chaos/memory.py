"""Peak memory of the API over all its restarts."""

import asyncio
from pathlib import Path

from services.local.stack.supervise import Child

SAMPLE_SECONDS = 0.5
# The API takes about 110 MB without faults. The rest is for buffers that fill while database and disk are away.
BOUND_BYTES = 256 << 20


class PeakMemory:
    """Largest resident set of all processes of a child."""

    def __init__(self, child: Child) -> None:
        self.peak_bytes = 0
        self._child = child

    async def watch(self) -> None:
        """Sample until canceled. The kernel keeps the peak between two samples."""
        while True:
            self.peak_bytes = max(self.peak_bytes, _peak_bytes(self._child.pid))
            await asyncio.sleep(SAMPLE_SECONDS)


def _peak_bytes(pid: int | None) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
