"""Alembic on one database, as the command line runs it, and the database's schema as text."""

import io
import subprocess
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config

from services.local.postgres.binaries import carried_binaries

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Migrator:
    """One database and the trees it is migrated from: those of Pulse, or those of a test."""

    url: str
    sql: Path = ROOT / "sql"
    versions: Path = ROOT / "migrations" / "versions"

    def run(self, action: Callable[[Config], object]) -> str:
        """Run one of alembic.command's functions and return its output."""
        output = io.StringIO()
        config = Config(ROOT / "alembic.ini", stdout=output)
        config.set_main_option("version_locations", str(self.versions))
        config.attributes.update(url=self.url, sql_directory=self.sql)
        action(config)
        return output.getvalue()

    def upgrade(self, revision: str = "head") -> str:
        """Run `alembic upgrade`."""
        return self.run(lambda config: command.upgrade(config, revision))

    def downgrade(self, revision: str) -> str:
        """Run `alembic downgrade`."""
        return self.run(lambda config: command.downgrade(config, revision))

    def rebuild(self) -> str:
        """Run `alembic -x layer=rebuild upgrade head`, which applies sql/ even if nothing changed."""

        def upgrade(config: Config) -> None:
            config.cmd_opts = Namespace(x=["layer=rebuild"])
            command.upgrade(config, "head")

        return self.run(upgrade)


def dump_schema(url: str) -> str:
    """Return the schema without rows as pg_dump writes it, without the parts that differ from run to run."""
    pg_dump = [str(carried_binaries() / "pg_dump"), "--schema-only", "--no-password", f"--dbname={url}"]
    text = subprocess.run(pg_dump, check=True, capture_output=True, text=True).stdout
    return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))
