"""The tables, columns, constraints and indexes that stood in the catalog when a layer was applied.

No migration makes them again. A restore that went on after an error may lack some, and nothing else would notice.
"""

import re
from typing import Any

from psycopg.rows import tuple_row

from migrations.layer_catalog import SCHEMAS, Session
from migrations.layer_definitions import plain_names

_PARTS = """
with part as (
  select c.oid, format('%%I.%%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and not c.relispartition
     and (n.nspname = any(%(schemas)s) or n.nspname = 'public' and c.relname = any(%(tables)s))
)
select 'table ' || name from part
union all
select format('column %%s.%%I', t.name, a.attname)
  from part t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
union all
select format('default of column %%s.%%I', t.name, a.attname)
  from part t join pg_attribute a on a.attrelid = t.oid and (a.atthasdef or a.attidentity <> '') and not a.attisdropped
union all
select format('constraint %%I on %%s', k.conname, t.name)
  from part t join pg_constraint k on k.conrelid = t.oid and k.contype in ('p', 'u', 'f', 'c', 'x') and k.convalidated
 -- `disable trigger all`, which a restore of data alone does and may not take back, switches foreign keys off.
 where not exists (select from pg_trigger g where g.tgconstraint = k.oid and g.tgenabled not in ('O', 'A'))
union all
select format('index %%I on %%s', c.relname, t.name)
  from part t join pg_index i on i.indrelid = t.oid and i.indisvalid join pg_class c on c.oid = i.indexrelid
 where not exists (select from pg_constraint k where k.conindid = i.indexrelid)
"""


def find_parts(session: Session, body: str) -> list[str]:
    """Return the parts of the tables of our schemas, and of those tables in public that the layer's text names.

    Users may have other tables in public, and may drop them.
    """
    return _read(session, sorted(set(re.findall(r"\bpublic\.(\w+)", body))))


def find_missing_parts(session: Session, recorded: dict[str, Any] | None) -> list[str]:
    """Return the recorded parts that are not in the catalog."""
    parts = (recorded or {}).get("tables", [])
    tables = [part.removeprefix("table public.") for part in parts if part.startswith("table public.")]
    return sorted(set(parts).difference(_read(session, tables)))


def _read(session: Session, tables: list[str]) -> list[str]:
    names = {"schemas": list(SCHEMAS), "tables": tables}
    with plain_names(session):
        rows = session.cursor(row_factory=tuple_row).execute(_PARTS.encode(), names).fetchall()
    return sorted(name for (name,) in rows)
