"""Lists that Python and SQL both need: one in each language, equal to each other, and no further copy."""

import re

import asyncpg

from services.shared.metrics import AUTH_FAILURE_REASONS
from services.shared.tenant_id import TENANT_ID_PATTERN, is_tenant_id
from services.ui_iot.auth.refusals import Refusal
from tests.support.migrator import ROOT

ROOMS = ("services", "exporter", "migrations", "sql")
# Other lists may name one or two reasons; a copy names most.
FEW_REASONS = 5


def sources() -> dict[str, str]:
    """Return the text of each source file of the program, by path."""
    found = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".sql"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in found}


async def test_sql_and_python_have_the_same_reasons_and_statuses(conn: asyncpg.Connection) -> None:
    rows = await conn.fetch("select reason, status from audit.auth_failure_reasons")
    assert {row["reason"]: row["status"] for row in rows} == {
        reason: Refusal(reason, "detail").status for reason in AUTH_FAILURE_REASONS
    }


def test_each_reason_is_documented_with_its_status() -> None:
    page = (ROOT / "docs" / "identity-providers.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", page, re.MULTILINE)
    assert {reason: int(status) for reason, status in found} == {
        reason: Refusal(reason, "detail").status for reason in AUTH_FAILURE_REASONS
    }


def test_there_is_no_further_list_of_reasons() -> None:
    def count(text: str) -> int:
        return sum(f'"{reason}"' in text or f"'{reason}'" in text for reason in AUTH_FAILURE_REASONS)

    found = {name for name, text in sources().items() if count(text) > FEW_REASONS}
    assert found == {"services/shared/metrics.py", "sql/10_audit/write/auth_failure_reasons.sql"}


def test_there_is_no_further_pattern_of_tenant_ids() -> None:
    found = {name for name, text in sources().items() if re.search(r"\[a-z0-9\]\[a-z0-9-\]", text)}
    assert found == {"services/shared/tenant_id.py", "migrations/versions/0001_foundation.sql"}


async def test_the_database_checks_the_same_pattern(conn: asyncpg.Connection) -> None:
    check = await conn.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'tenants_tenant_id_check'"
    )
    assert f"'^{TENANT_ID_PATTERN}$'" in check
    for text in ("a", "0-", "a" * 63):
        assert is_tenant_id(text)
    for other in ("", "-a", "A", "a_b", "a" * 64, "a\n", "é", None, 7):
        assert not is_tenant_id(other)
