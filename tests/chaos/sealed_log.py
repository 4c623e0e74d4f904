"""The proof over the trail at the end of a run: every row hashed anew, held against all that was anchored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cli import database
from services.shared.sealed_log import block as audit
from services.shared.sealed_log.kept import read_kept
from services.shared.sealed_log.key_file import read_verifiers
from services.shared.sealed_log.verification import Verification
from tests.chaos.judgement import Broken


@dataclass(frozen=True, slots=True)
class SealedLog:
    """What is sealed, under how many leases, how many checkpoints were anchored, and what is wrong with it."""

    blocks: int
    rows: int
    leases: int
    checkpoints: int
    broken: Sequence[Broken]


async def verify_log(url: str, *, anchors: Path, public_keys: Path) -> SealedLog:
    """Verify everything; url: the database as pulse_auditor, who may read all that the proof needs."""
    keys = read_verifiers(public_keys)
    try:
        kept = read_kept(anchors, keys)
    except audit.Broken as fault:
        return SealedLog(0, 0, 0, 0, [Broken("anchored checkpoint does not hold", str(fault))])
    async with database.open_database(url) as pool:
        report = await Verification(pool, keys, kept).run()
        leases = await pool.fetchval("select count(distinct epoch) from audit.block_headers")
    broken = [Broken("the sealed trail does not verify", str(fault)) for fault in report.faults]
    if report.unsealed or not kept:
        broken.append(Broken("the trail is not sealed", f"{report.unsealed} rows, {len(kept)} checkpoints anchored"))
    return SealedLog(report.blocks, report.rows, leases, len(kept), broken)
