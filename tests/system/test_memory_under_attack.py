"""No process and no backend of Postgres grows without end while clients and one tenant attack a whole stack."""

import pytest

from benchmarks import memory
from benchmarks._bench import scratch_database
from services.local.stack.roster import SERVICES

# Far above the use of an attack in ten minutes, far below that of an unbounded leak in ten seconds.
MOST_MEGABYTES = 600


@pytest.mark.slow
async def test_memory_is_bounded_under_every_attack() -> None:
    with scratch_database() as url:
        found = await memory.measure(url, 3.0)
    assert set(found) == {"idle", "rules", "hanging", *memory.DOOR_ATTACKS, "readers"}
    for attack, peaks in found.items():
        assert set(peaks) == {*SERVICES, memory.BACKEND}
        assert {name: round(peak) for name, peak in peaks.items() if not 0 < peak < MOST_MEGABYTES} == {}, attack
