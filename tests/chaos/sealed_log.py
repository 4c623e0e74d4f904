"""Verification of the trail at the end of a run: every row is hashed again and compared with all checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cli import database
from services.shared.sealed_log import block as audit
from services.shared.sealed_log.kept import read_kept
from services.shared.sealed_log.key_file import read_verifiers
from services.shared.sealed_log.verification import Verification
from tests.chaos.judgement import BrokenPromise


@dataclass(frozen=True, slots=True)
class SealedLogCheck:
    """Numbers of sealed blocks and rows, leases and anchored checkpoints, with all faults."""

    blocks: int
    rows: int
    leases: int
    checkpoints: int
    broken: Sequence[BrokenPromise]


async def verify_log(url: str, *, anchors: Path, public_keys: Path) -> SealedLogCheck:
    """Verify everything. url: the database as pulse_auditor, which may read all that the proof needs."""
    keys = read_verifiers(public_keys)
    try:
        kept = read_kept(anchors, keys)
    except audit.Broken as fault:
        return SealedLogCheck(0, 0, 0, 0, [BrokenPromise("anchored checkpoint does not hold", str(fault))])
    async with database.open_database(url) as pool:
        report = await Verification(pool, keys, kept).run()
        leases = await pool.fetchval("select count(distinct epoch) from audit.block_headers")
    broken = [BrokenPromise("the sealed trail does not verify", str(fault)) for fault in report.faults]
    if report.unsealed or not kept:
        broken.append(
            BrokenPromise("the trail is not sealed", f"{report.unsealed} rows, {len(kept)} checkpoints anchored")
        )
    return SealedLogCheck(report.blocks, report.rows, leases, len(kept), broken)
