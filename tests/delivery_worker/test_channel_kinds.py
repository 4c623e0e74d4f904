"""Kinds of channels are listed once in the code and once in the database."""

import re
from pathlib import Path

import asyncpg
import orjson
import pytest

from services.delivery_worker.channels import CHANNELS
from services.shared.channels import KINDS
from tests.support.migrator import ROOT

MAY_NAME_KINDS = {
    "services/shared/channels.py": "the list of kinds",
    "sql/50_delivery/_required_members.sql": "the kinds that need more than an address",
}


def places_that_name(kinds: set[str], rooms: tuple[str, ...] = ("services", "exporter", "sql")) -> set[str]:
    """Return the files, except a kind's own module, that contain a kind as a string."""
    files = [path for room in rooms for end in ("*.py", "*.sql") for path in (ROOT / room).rglob(end)]
    quoted = re.compile(rf"""(?P<quote>['"])({"|".join(kinds)})(?P=quote)""")
    found = {path.relative_to(ROOT).as_posix() for path in files if quoted.search(path.read_text(encoding="utf-8"))}
    return found - {f"services/delivery_worker/channels/{kind}.py" for kind in kinds}


def test_no_other_place_names_kinds() -> None:
    """Such a list would miss the next kind. Derive it from services.shared.channels.KINDS."""
    # A webhook is also what the demo and an example use.
    assert places_that_name(set(KINDS) - {"webhook"}) - MAY_NAME_KINDS.keys() == set()


async def test_the_database_admits_the_same_kinds(conn: asyncpg.Connection) -> None:
    """A kind in one list alone is refused by the API or by the table: add a revision with the table's check."""
    assert {row[0] for row in await conn.fetch("select kind from delivery._channel_kinds()")} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
async def test_code_and_database_need_the_same_members(conn: asyncpg.Connection, kind: str) -> None:
    """delivery._required_members names what the stored configuration of a kind cannot be without."""
    config = KINDS[kind].config
    required = {name for name, field in config.model_fields.items() if field.is_required()}
    if "secret" in config.model_fields:
        required.add("secret")  # the API makes it
    example = orjson.dumps(dict(KINDS[kind].example)).decode()
    assert set(await conn.fetchval("select delivery._required_members($1)", kind)) == required
    await conn.fetchval("select delivery._check_config($1, $2::text::jsonb)", kind, example)


def test_every_kind_can_send() -> None:
    """The module of a kind has the name of the kind."""
    modules = {path.stem for path in (ROOT / "services/delivery_worker/channels").glob("*.py")}
    assert modules >= set(KINDS) == CHANNELS.keys()
    assert all(Path(send.__code__.co_filename).stem == kind for kind, send in CHANNELS.items())  # type: ignore[attr-defined]
