"""Alembic's commands: revisions and SQL layer in one transaction.

`alembic upgrade head` compares the catalog with the applied layer, and rebuilds the layer if they differ;
`alembic -x layer=rebuild upgrade head` always rebuilds it.
`alembic -x set-passwords=yes upgrade head` sets the passwords of PULSE_APP_PASSWORD and similar variables on existing
roles.
"""

import sys
from pathlib import Path

import psycopg
from alembic import context
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, NullPool, create_engine, exc

from migrations.database_url import NoDatabase, database_url
from migrations.layer_catalog import LayerError, Session, drop_layer, find_objects, one_line, require_owner
from migrations.layer_definitions import find_foreign_objects, one_line_of
from migrations.places import sql_directory
from migrations.role_names import RoleNames, RolesRefused
from migrations.roles import ensure_roles, refuse_other_owner, refuse_service_login
from migrations.server import UnsuitableServer, connect
from migrations.sql_layer import layer_faults, part_faults, read_layer, restore_lost_schemas, settle_layer

# Held while a database has no Pulse table to lock: the first eight bytes of the SHA-256 of "pulse migration".
MIGRATION_LOCK = 4865765586851406717
# Waiting for another migration is normal. Waiting behind a query blocks every insert queued behind the migration.
QUEUE_SECONDS = 60
LOCK_SECONDS = 4
say = context.config.print_stdout
asked = context.get_x_argument(as_dictionary=True)
rebuild = asked.get("layer") == "rebuild"
set_passwords = asked.get("set-passwords") == "yes"
try:
    names = RoleNames.find()
    checkout = read_layer(Path(context.config.attributes.get("sql_directory", sql_directory())))
except RolesRefused as error:
    raise CommandError(str(error)) from error


def configure(connection: Connection) -> None:
    """Configure Alembic for a connection with an open transaction."""
    context.configure(
        connection=connection,
        target_metadata=MetaData(),
        include_name=lambda *_: False,
        on_version_apply=lambda step, **_: say(describe(step)),
        process_revision_directives=lambda *_: compare_layer(raw(connection)),
    )


def describe(step: MigrationInfo) -> str:
    """Return a line about a revision that ran."""
    verb = "stamped" if step.is_stamp else "upgraded" if step.is_upgrade else "downgraded"
    before, after = (", ".join(ids) or "base" for ids in (step.source_revision_ids, step.destination_revision_ids))
    return f"{verb} {before} -> {after}"


def compare_layer(session: Session) -> None:
    """Compare the layer for `alembic check`; tables are written by hand and not compared."""
    head = str(context.get_head_revision())
    if any(parts := part_faults(session, revision=head)):
        raise CommandError(f"tables {parts}: no migration makes it again, see docs/operate.md")
    faults = layer_faults(session, checkout, revision=head)
    if faults is None:
        raise CommandError("the database's SQL layer differs from sql/: run alembic upgrade head")
    if faults:
        raise CommandError(f"the SQL layer is not as it was applied: {one_line_of(faults)}: run alembic upgrade head")


def look(connection: Connection) -> None:
    """Run a read-only command such as `current`, without any change."""
    configure(connection)
    context.run_migrations()
    connection.rollback()


def migrate(connection: Connection, destination: str | tuple[str, ...] | None) -> None:
    """Migrate revisions and layer in the transaction that the caller commits."""
    session = raw(connection)
    require_owner(session)
    session.execute(f"set local role {names.owner}".encode())
    queue(session)
    require_owner(session)
    configure(connection)
    head = context.get_head_revision()
    current = context.get_context().get_current_revision()
    for schema in restore_lost_schemas(session, revision=current):
        say(f"schema {schema} was missing: created")
    faults = look_for_faults(session, head) if current == destination == head else None
    if any(parts := part_faults(session, revision=current)):
        say(f"WARNING: tables {parts}: no migration makes it again, see docs/operate.md")
    for thing in find_foreign_objects(session):
        say(f"left alone: {thing}: it is not the SQL layer's")
    if faults:
        say(f"the SQL layer is not as it was applied: {one_line_of(faults)}")
    elif faults == [] and not rebuild:
        say(f"nothing to do: revision {head}, SQL layer {checkout.sha256[:12]}")
        return
    dropped = drop_layer(session)
    context.run_migrations()
    revision = context.get_context().get_current_revision()
    if settle_layer(session, checkout, revision=revision, head=str(head), say=say):
        for thing in sorted(dropped.difference(find_objects(session))):
            say(f"dropped {thing}: this SQL layer does not have it")


def look_for_faults(session: Session, head: str | None) -> list[str] | None:
    """Return the differences from the applied layer. A lock does not stop a migration without work."""
    try:
        return layer_faults(session, checkout, revision=head)
    except psycopg.errors.LockNotAvailable as error:
        say(f"the SQL layer was not compared with the catalog: {one_line(error)}")
        return []


def queue(session: Session) -> None:
    """Wait for other migrations, then set a short lock_timeout."""
    session.execute(f"set local lock_timeout = '{QUEUE_SECONDS}s'".encode())
    try:
        if not is_migrated(session):
            session.execute("select pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        # Any login can take an advisory lock. A role that may only read the table cannot lock it in this mode.
        if is_migrated(session):
            session.execute("lock table public.alembic_version in share row exclusive mode")
    except psycopg.errors.LockNotAvailable:
        raise CommandError(f"another migration has been running for {QUEUE_SECONDS} s; nothing was changed") from None
    session.execute(f"set local lock_timeout = '{LOCK_SECONDS}s'".encode())


def is_migrated(session: Session) -> bool:
    """Return whether the database has the table of revisions."""
    return session.execute("select to_regclass('public.alembic_version') is not null").fetchone() == (True,)


def raw(connection: Connection) -> Session:
    """Return the psycopg connection, which runs SQL text unchanged."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def run() -> None:
    """Open the database and run the command."""
    url = context.config.attributes.get("url") or database_url()
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(url), poolclass=NullPool)
    try:
        destination = context.get_revision_argument()
    except KeyError:  # a command without a destination
        with engine.connect() as connection:
            look(connection)
        return
    with connect(url, autocommit=True) as session:
        refuse_service_login(session, names)
        refuse_other_owner(session, names)
        notices = ensure_roles(session, layer=checkout.body, set_passwords=set_passwords)
    with engine.begin() as connection:
        connection.exec_driver_sql("select 1")  # the driver opens the transaction, as the raw connection needs
        migrate(connection, destination)
    for line in notices:
        say(line)


if context.is_offline_mode():
    raise CommandError("--sql is refused: what to drop of the SQL layer is found in the catalog of a database")
try:
    run()
except psycopg.errors.LockNotAvailable as error:
    raise CommandError(f"nothing was changed, {LOCK_SECONDS} s behind a lock: {one_line(error)}") from error
except psycopg.Error as error:
    raise CommandError(f"nothing was changed: {one_line(error)}") from error
except exc.DBAPIError as error:
    raise CommandError(f"nothing was changed: {' '.join(str(error.orig).split())}") from error
except LayerError as error:
    raise CommandError(f"nothing was changed: {error}") from error
except NoDatabase as error:
    # Alembic exits with 255 after a CommandError. Every process of Pulse exits with 2 for an unusable URL.
    print(f"FAILED: {error}", file=sys.stderr)
    raise SystemExit(2) from None
except (UnsuitableServer, RolesRefused) as error:
    raise CommandError(str(error)) from error
