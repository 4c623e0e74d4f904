"""Privileges that shared servers revoke from PUBLIC, and a login that migrates without being superuser."""

from contextlib import suppress
from typing import Any

import psycopg
from alembic.util import CommandError
from psycopg import sql

from tests.support.migrator import Migrator

DEPLOYER = "pulse_test_deployer"

FUNCTIONS = """
pg_notify(text, text)  set_config(text, text, boolean)  current_setting(text)  current_setting(text, boolean)
pg_backend_pid()  pg_terminate_backend(integer, bigint)  pg_cancel_backend(integer)  pg_blocking_pids(integer)
pg_stat_get_activity(integer)  pg_total_relation_size(regclass)  pg_database_size(name)  pg_database_size(oid)
pg_current_xact_id()  pg_advisory_xact_lock(bigint)  pg_try_advisory_xact_lock(bigint)  inet_client_addr()  version()
lo_create(oid)  query_to_xml(text, boolean, boolean, text)  pg_export_snapshot()  pg_is_in_recovery()
"""
RELATIONS = "pg_stat_activity pg_stat_replication pg_prepared_xacts pg_replication_slots pg_stat_user_tables"


def harden(session: psycopg.Connection[Any]) -> None:
    """Revoke all of PUBLIC's rights in this database; session is a superuser's."""
    functions = [signature.strip() for line in FUNCTIONS.strip().splitlines() for signature in line.split("  ")]
    for statement in (
        "revoke all on schema public from public",
        "revoke all on language sql, plpgsql from public",
        *(f"revoke execute on function pg_catalog.{signature} from public" for signature in functions),
        *(f"revoke select on pg_catalog.{relation} from public" for relation in RELATIONS.split()),
        "alter default privileges revoke all on functions from public",
        "alter default privileges revoke all on types from public",
    ):
        session.execute(statement.encode())
    database = sql.Identifier(session.info.dbname)
    session.execute(sql.SQL("revoke all on database {} from public").format(database))


def make_deployer(session: psycopg.Connection[Any], password: str) -> None:
    """Make a login that may create roles but is no superuser, and give it the database."""
    with suppress(psycopg.errors.DuplicateObject), session.transaction():
        session.execute(f"create role {DEPLOYER} login createrole".encode())
    session.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(DEPLOYER), sql.Literal(password)))
    database = sql.Identifier(session.info.dbname)
    session.execute(sql.SQL("alter database {} owner to {}").format(database, sql.Identifier(DEPLOYER)))


def migrate_as_deployer(migrator: Migrator, administrator: psycopg.Connection[Any]) -> str:
    """Migrate; run as administrator the statements that the message asks for."""
    try:
        return migrator.upgrade()
    except CommandError as refused:
        reason, _, statements = str(refused).partition("\n")
        if not reason.endswith("Ask an administrator of the server to run:"):
            raise
        administrator.execute(statements.encode())
    return migrator.upgrade()
