"""The SQL layer: every function, procedure, view, trigger, policy and grant, as files in sql/.

A migration drops the layer, runs the revisions and creates the layer again in one transaction. So no object of the
layer blocks a revision, and the database never shows a partial layer:

    at head, sql/ and the catalog as recorded ────────────────────────────▶ nothing to do
    otherwise: drop ─▶ revisions ─┬─ at head ─▶ apply sql/, record it in public.sql_layer
                                  ├─ elsewhere, a layer recorded there ─▶ apply the recorded one
                                  └─ elsewhere, none recorded (or base) ─▶ leave none, report it
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import Error
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from migrations.layer_catalog import LayerError, Session, one_line
from migrations.layer_definitions import find_faults, one_line_of, record_definitions, why_not_comparable
from migrations.lost_schemas import restore_schemas
from migrations.role_names import RoleNames
from migrations.table_parts import PartFaults, find_part_faults, record_parts

_HEADER = re.compile(r"^-- file: (\S+)\n", re.MULTILINE)

_TABLE = """
create table public.sql_layer (
  layer_id bigint generated always as identity,
  revision text not null,
  sha256 text not null,
  body text not null,
  applied_at timestamptz not null default clock_timestamp(),
  constraint sql_layer_pkey primary key (layer_id)
);
comment on table public.sql_layer is 'Every SQL layer this database has run, newest last: which text wrote which rows.';
comment on column public.sql_layer.layer_id is 'Order of application.';
comment on column public.sql_layer.revision is 'Revision of the tables it was applied to.';
comment on column public.sql_layer.sha256 is 'SHA-256 of body.';
comment on column public.sql_layer.body is 'All files of sql/, each behind a line with its path.';
comment on column public.sql_layer.applied_at is 'When it was applied.';
comment on table public.alembic_version is 'Revision the tables are at.';
comment on column public.alembic_version.version_num is 'The revision; no row before the first.';
"""

_COLUMN = """
alter table public.sql_layer add column definitions jsonb;
comment on column public.sql_layer.definitions is
  'Server version and a digest of each object as it then stood in the catalog; null for layers older than the column.';
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """All files of a layer in one text, each behind a line `-- file: path`."""

    body: str

    @property
    def sha256(self) -> str:
        """The layer's fingerprint in hex."""
        return hashlib.sha256(self.body.encode()).hexdigest()

    def files(self) -> Iterator[tuple[str, str]]:
        """Return path and text of each file, in the order of application."""
        parts = _HEADER.split(self.body)
        return zip(parts[1::2], parts[2::2], strict=True)


def read_layer(directory: Path) -> Layer:
    """Read a checkout's layer, with this installation's roles: every *.sql below directory, in path order."""
    names = RoleNames.find()
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*.sql")}
    texts = ((name, paths[name].read_text(encoding="utf-8")) for name in sorted(paths))
    return Layer("".join(f"-- file: {name}\n{names.rename(text).rstrip()}\n" for name, text in texts))


class Applied(NamedTuple):
    """The layer applied last. definitions: the catalog's state at that time; None for layers older than this record."""

    revision: str
    sha256: str
    definitions: dict[str, Any] | None


def applied_layer(session: Session) -> Applied | None:
    """Return the layer applied last, None without one."""
    if not _exists(session, "public.sql_layer"):
        return None
    # As JSON, because the table may be older than the column.
    query = """
select revision, sha256, to_jsonb(l) -> 'definitions' from public.sql_layer l order by layer_id desc limit 1
"""
    row = session.cursor(row_factory=tuple_row).execute(query).fetchone()
    return Applied(*row) if row else None


def recorded_body(session: Session) -> str:
    """Return the text of the layer applied last; there must be one."""
    query = "select body from public.sql_layer order by layer_id desc limit 1"
    row = session.cursor(row_factory=tuple_row).execute(query).fetchone()
    return str(row[0]) if row else ""


def layer_faults(session: Session, layer: Layer, *, revision: str | None) -> list[str] | None:
    """Return the catalog's differences from this layer as it was applied at this revision.

    Return None if the layer applied last is another one or ran at another revision.
    """
    applied = applied_layer(session)
    if applied is None or (applied.revision, applied.sha256) != (revision, layer.sha256):
        return None
    reason = why_not_comparable(session, applied.definitions)
    return [reason] if reason else find_faults(session, applied.definitions or {})


def part_faults(session: Session, *, revision: str | None) -> PartFaults:
    """Return the missing and altered parts of this revision's tables since its layer was applied."""
    return find_part_faults(session, _definitions_at(session, revision))


def restore_lost_schemas(session: Session, *, revision: str | None) -> list[str]:
    """Create the schemas that the layer of this revision had and the catalog lacks. Raises LayerError."""
    return restore_schemas(session, _definitions_at(session, revision))


def _definitions_at(session: Session, revision: str | None) -> dict[str, Any] | None:
    applied = applied_layer(session)
    return applied.definitions if applied and applied.revision == revision else None


def recorded_layer(session: Session, revision: str) -> Layer | None:
    """Return the layer applied last at a revision, None without one."""
    query = "select body from public.sql_layer where revision = %s order by layer_id desc limit 1"
    row = session.cursor(row_factory=tuple_row).execute(query, [revision]).fetchone()
    return Layer(row[0]) if row else None


def apply_layer(session: Session, layer: Layer, *, revision: str) -> None:
    """Create the layer file by file and record that it ran at this revision."""
    for name, text in layer.files():
        try:
            session.execute(text.encode())
        except Error as error:
            raise LayerError(f"sql/{name}{_line(error, text)}: {one_line(error)}") from error
    parts = record_parts(session, layer.body, _definitions_at(session, revision))
    session.execute(
        "insert into public.sql_layer (revision, sha256, body, definitions) values (%s, %s, %s, %s)",
        [revision, layer.sha256, layer.body, Jsonb(record_definitions(session) | parts)],
    )


def settle_layer(
    session: Session, checkout: Layer, *, revision: str | None, head: str, say: Callable[[str], None]
) -> bool:
    """Apply the layer of the present revision after the revisions; return whether there is one."""
    if not _exists(session, "public.sql_layer"):
        session.execute(_TABLE)
    if not _has_definitions(session):
        session.execute(_COLUMN)
    if revision is None:
        return False
    layer = checkout if revision == head else recorded_layer(session, revision)
    if layer is None:
        say(f"no SQL layer is recorded for revision {revision}: the database has none until the next upgrade head")
        return False
    before = applied_layer(session)
    apply_layer(session, layer, revision=revision)
    say(f"SQL layer {layer.sha256[:12]} applied at revision {revision} ({sum(1 for _ in layer.files())} files)")
    if before and before[:2] == (revision, layer.sha256) and not why_not_comparable(session, before.definitions):
        left = find_faults(session, before.definitions or {})
        if left:
            say(f"WARNING: differences remain and are recorded: {one_line_of(left)}")
    return True


def _exists(session: Session, table: str) -> bool:
    row = session.cursor(row_factory=tuple_row).execute("select to_regclass(%s) is not null", [table]).fetchone()
    return row is not None and bool(row[0])


def _has_definitions(session: Session) -> bool:
    query = "select from pg_attribute where attrelid = 'public.sql_layer'::regclass and attname = 'definitions'"
    return session.execute(query).fetchone() is not None


def _line(error: Error, text: str) -> str:
    """Return `:12` if the server reported the place of the error in the text."""
    position = error.diag.statement_position
    return f":{text.count(chr(10), 0, int(position) - 1) + 1}" if position else ""
