"""Comparison of the catalog with the applied SQL layer: `python -m migrations.layer_check` prints each difference.

A migration repairs differences; this only lists them, for `pulse audit verify` and the ops worker. All queries are in
this program, because a manipulated function of the layer could hide the manipulation.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import psycopg

from migrations.layer_catalog import Session, one_line
from migrations.layer_definitions import compare_definitions, find_foreign_objects, why_not_comparable
from migrations.places import sql_directory
from migrations.role_names import RolesRefused
from migrations.sql_layer import applied_layer, read_layer, recorded_body
from migrations.table_parts import find_part_faults
from migrations.tampering import find_other_bodies, find_tampering

VARIABLE = "PULSE_LAYER_CHECK_URL"


class Findings(NamedTuple):
    """The differences, and notes about parts that could not be compared."""

    faults: list[str]
    notes: list[str]


def check_layer(session: Session, directory: Path | None = None) -> Findings:
    """Compare the catalog with the record in the database, and function texts with the same layer as files."""
    applied = applied_layer(session)
    if applied is None:
        return Findings(["no SQL layer is recorded in public.sql_layer"], [])
    checkout, body, notes = read_layer(directory or sql_directory()), recorded_body(session), list[str]()
    faults = []
    if hashlib.sha256(body.encode()).hexdigest() != applied.sha256:
        faults.append("altered record of the SQL layer in public.sql_layer")
    reason = why_not_comparable(session, applied.definitions)
    if reason is None:
        faults += compare_definitions(session, applied.definitions or {})
    else:
        notes.append(f"definitions were not compared: {reason}")
    parts = find_part_faults(session, applied.definitions)
    faults += [*(f"missing {name}" for name in parts.missing), *(f"altered {name}" for name in parts.altered)]
    faults += find_foreign_objects(session)
    tampering, foreign = find_tampering(session, body)
    faults += tampering
    notes += foreign
    if checkout.sha256 == applied.sha256:
        faults += find_other_bodies(session, checkout)
    else:
        notes.append("function texts were not compared: the database has the SQL layer of another version")
    return Findings(faults, notes)


def read_findings(url: str) -> Findings:
    """Compare over a new connection. Raises psycopg.Error."""
    # One transaction without prepared statements: the URL may lead to a pooler.
    with psycopg.connect(url, client_encoding="utf8", connect_timeout=10, prepare_threshold=None) as session:
        session.execute("set transaction read only")
        session.execute("set local statement_timeout = '60s'")
        return check_layer(session)


def main() -> int:
    """Print each difference of the database in PULSE_LAYER_CHECK_URL.

    Exit status: 0 without differences, 1 with some, 2 if they could not be compared.
    """
    try:
        findings = read_findings(os.environ[VARIABLE])
    except (psycopg.Error, RolesRefused, KeyError) as error:
        print(one_line(error) if isinstance(error, psycopg.Error) else error, file=sys.stderr)
        return 2
    for fault in findings.faults:
        print(" ".join(fault.split()))
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
