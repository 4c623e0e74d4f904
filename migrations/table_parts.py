"""The tables, columns, constraints, indexes and default partitions in the catalog when a layer was applied.

No migration makes them again. A restore that continued after an error may lack some, a statement may have altered some,
and nothing else would detect that. Definitions are compared on the recording major version, names on any.
"""

import hashlib
import re
from typing import Any, NamedTuple

from psycopg.rows import tuple_row

from migrations.layer_catalog import SCHEMAS, Session
from migrations.layer_definitions import one_line_of, plain_names

_PARTS = """
with part as (
  select c.oid, c.relpersistence, format('%%I.%%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and not c.relispartition
     and (n.nspname = any(%(schemas)s) or n.nspname = 'public' and c.relname = any(%(tables)s))
)
select 'table ' || name, relpersistence::text from part
union all
select format('default partition %%s of %%s', p.partdefid::regclass, t.name), ''
  from part t join pg_partitioned_table p on p.partrelid = t.oid and p.partdefid <> 0
union all
select format('column %%s.%%I', t.name, a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), nullif(a.attcollation, 0)::regcollation, a.attnotnull)
  from part t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
union all
select format('default of column %%s.%%I', t.name, a.attname),
       concat_ws(' ', a.attidentity::text, a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid))
  from part t join pg_attribute a on a.attrelid = t.oid and (a.atthasdef or a.attidentity <> '') and not a.attisdropped
  left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
union all
select format('constraint %%I on %%s', k.conname, t.name), pg_get_constraintdef(k.oid)
  from part t join pg_constraint k on k.conrelid = t.oid and k.contype in ('p', 'u', 'f', 'c', 'x') and k.convalidated
 -- `disable trigger all`, which a restore of data alone does and may not take back, switches foreign keys off.
 where not exists (select from pg_trigger g where g.tgconstraint = k.oid and g.tgenabled not in ('O', 'A'))
union all
-- Storage parameters are the operator's to tune.
select format('index %%I on %%s', c.relname, t.name),
       regexp_replace(pg_get_indexdef(c.oid), ' WITH \\([^)]*\\)', '')
  from part t join pg_index i on i.indrelid = t.oid and i.indisvalid join pg_class c on c.oid = i.indexrelid
 where not exists (select from pg_constraint k where k.conindid = i.indexrelid)
"""
QUERIES = (_PARTS,)


class PartFaults(NamedTuple):
    """The recorded parts that the catalog lacks, and those with another definition."""

    missing: list[str]
    altered: list[str]

    def __str__(self) -> str:
        lists = (("lack", self.missing), ("have altered", self.altered))
        return " and ".join(f"{verb} {one_line_of(names)}" for verb, names in lists if names)


def record_parts(session: Session, body: str, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the record of the tables in Pulse's schemas, and of the tables in public that the layer's text names.

    Users may have other tables in public, and may drop them. `before` is the record at the same revision. Its faults
    stay faults, because applying a layer repairs no table.
    """
    # A detached default partition is not a separate table, even if the layer's text names it.
    detached = set(re.findall(r"^default partition public\.(\w+) of ", "\n".join(_names(before)), re.MULTILINE))
    now = _read(session, sorted(set(re.findall(r"\bpublic\.(\w+)", body)) - detached))
    names = {*now, *find_part_faults(session, before).missing}
    kept = (before or {}).get("table_digests", {}) if _is_comparable(session, before) else {}
    return {"tables": sorted(names), "table_digests": now | kept}


def find_part_faults(session: Session, recorded: dict[str, Any] | None) -> PartFaults:
    """Return the recorded parts that the catalog lacks or has altered."""
    parts = _names(recorded)
    tables = [part.removeprefix("table public.") for part in parts if part.startswith("table public.")]
    now = _read(session, tables)
    before = (recorded or {}).get("table_digests", {}) if _is_comparable(session, recorded) else {}
    altered = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
    return PartFaults(sorted(set(parts).difference(now)), altered)


def _names(recorded: dict[str, Any] | None) -> list[str]:
    return list((recorded or {}).get("tables", ()))


def _is_comparable(session: Session, recorded: dict[str, Any] | None) -> bool:
    return (recorded or {}).get("postgres") == session.info.server_version // 10000


def _read(session: Session, tables: list[str]) -> dict[str, str]:
    names = {"schemas": list(SCHEMAS), "tables": tables}
    with plain_names(session):
        rows = session.cursor(row_factory=tuple_row).execute(_PARTS.encode(), names).fetchall()
    return {name: hashlib.sha256(text.encode()).hexdigest()[:32] for name, text in rows}
