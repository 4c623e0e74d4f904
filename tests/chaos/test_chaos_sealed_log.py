"""Verification of the sealed trail at the end of a chaos run."""

from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from services.ops_worker.sealing.anchors import FileAnchor
from services.ops_worker.sealing.sealer import Sealer
from services.shared import db
from services.shared.sealed_log.key_file import KeyFile
from tests.chaos.sealed_log import SealedLogCheck, verify_log


@pytest.fixture
async def anchors(tmp_path: Path, conn: asyncpg.Connection, ops_pool: db.Pool) -> Path:
    """Three sealed and anchored events, with the public key next to the checkpoints."""
    keys = KeyFile(tmp_path / "signing.key", "pulse.test/audit")
    for number in range(3):
        await conn.execute(
            "select audit.write(array[audit.event('acme', 'alert.opened', p_entity_id => $1)])", str(number)
        )
        await Sealer("one", keys, rows_per_pass=1000, lease_seconds=10.0).seal(ops_pool)
        await FileAnchor(tmp_path / "checkpoints").keep(
            await conn.fetchval("select note from audit.checkpoints order by tree_size desc limit 1")
        )
    return tmp_path / "checkpoints"


async def verified(anchors: Path, role_url: Callable[[str], str]) -> SealedLogCheck:
    return await verify_log(
        role_url("pulse_auditor"), anchors=anchors, public_keys=anchors.with_name("signing.key.pub")
    )


def found(log: SealedLogCheck) -> list[str]:
    return [broken.what for broken in log.broken]


async def test_a_whole_trail_is_clean(anchors: Path, role_url: Callable[[str], str]) -> None:
    log = await verified(anchors, role_url)
    assert (found(log), log.blocks, log.leases, log.checkpoints) == ([], 3, 1, 3)


@pytest.mark.parametrize(
    "tampering",
    [
        "delete from audit_log where entity_id = '1'",
        "update audit_log set message = 'nothing' where entity_id = '1'",
        "delete from audit.blocks where block_no = 2; delete from audit.checkpoints where tree_size = 3",
    ],
)
async def test_what_was_altered_is_found(
    anchors: Path, role_url: Callable[[str], str], conn: asyncpg.Connection, tampering: str
) -> None:
    """The alteration bypasses all triggers."""
    await conn.execute(f"set session_replication_role = replica; {tampering}")
    assert "the sealed trail does not verify" in found(await verified(anchors, role_url))


async def test_what_is_not_sealed_is_found(
    anchors: Path, role_url: Callable[[str], str], conn: asyncpg.Connection
) -> None:
    await conn.execute("select audit.write(array[audit.event('acme', 'alert.opened')])")
    assert found(await verified(anchors, role_url)) == ["the trail is not sealed"]


async def test_a_checkpoint_of_another_key_is_found(anchors: Path, role_url: Callable[[str], str]) -> None:
    KeyFile(anchors.with_name("signing.key"), "pulse.test/audit").rotate()
    anchors.with_name("signing.key.pub").write_text(
        anchors.with_name("signing.key.pub").read_text().splitlines(keepends=True)[-1]
    )
    assert found(await verified(anchors, role_url)) == ["anchored checkpoint does not hold"]
