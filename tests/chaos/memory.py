"""How much memory the API takes, over all its lives."""

import asyncio
from pathlib import Path

from services.local.stack.supervise import Child

SAMPLE_SECONDS = 0.5
# An API without a fault takes about 110 MB; the rest is for buffers that fill while database and disk are away.
BOUND_BYTES = 256 << 20


class PeakMemory:
    """The largest resident set that any process of a child had."""

    def __init__(self, child: Child) -> None:
        self.peak_bytes = 0
        self._child = child

    async def watch(self) -> None:
        """Look until cancelled; the kernel keeps the peak between two looks."""
        while True:
            self.peak_bytes = max(self.peak_bytes, _peak_bytes(self._child.pid))
            await asyncio.sleep(SAMPLE_SECONDS)


def _peak_bytes(pid: int | None) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
