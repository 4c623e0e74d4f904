"""The SQL layer as evidence: what differs in the catalog lets changes pass unseen, or readers see something else."""

import psycopg

from migrations.layer_catalog import one_line
from migrations.layer_check import Findings, read_findings
from services.cli.errors import CommandFailed


def compare_layer(url: str) -> Findings:
    """Compare the database's SQL layer with its record, by queries of this program. Raises CommandFailed."""
    try:
        return read_findings(url)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
        raise CommandFailed(
            f"the SQL layer was not compared: {one_line(error)}; ./pulse migrate brings an older database up"
        ) from error
    except psycopg.Error as error:
        raise CommandFailed(f"the SQL layer was not compared: {one_line(error)}") from error
