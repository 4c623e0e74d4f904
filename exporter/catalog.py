"""The views of schema metrics as the catalog has them right now."""

from dataclasses import dataclass

from exporter.link import Link

# Domains count as what they are made of, enums as 'enum', types that Postgres does not bring as their full name.
# Oldest view first: where two names clash, the newcomer gives way. Columns and comments are looked up view by view: a
# join would read them all, also those of a thousand partitions.
_CATALOG = """
select
  c.relname::text as name,
  coalesce(obj_description(c.oid, 'pg_class'), '') as comment,
  has_table_privilege(c.oid, 'select') as readable,
  coalesce(a.columns, '{}') as columns,
  coalesce(a.types, '{}') as types
from pg_class c
cross join lateral (
  select
    array_agg(a.attname::text order by a.attnum) as columns,
    array_agg(
      (
        select
          case
            when b.typtype = 'e' then 'enum'
            when b.typnamespace = 'pg_catalog'::regnamespace then b.typname::text
            else format_type(b.oid, null)
          end
        from pg_type t
        join pg_type b on b.oid = case t.typtype when 'd' then t.typbasetype else t.oid end
        where t.oid = a.atttypid
      )
      order by a.attnum
    ) as types
  from pg_attribute a
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
) a
where c.relnamespace = (select oid from pg_namespace where nspname = 'metrics')
  and c.relkind = 'v'
order by c.oid
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; type is a built-in type's name, 'enum', or the full name of any other type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class View:
    """A view of schema metrics; comment is '' when it has none."""

    name: str
    comment: str
    readable: bool
    columns: tuple[Column, ...]


async def read_catalog(link: Link) -> list[View]:
    """Every view of schema metrics, oldest first."""
    return [
        View(
            name=row["name"],
            comment=row["comment"],
            readable=row["readable"],
            columns=tuple(map(Column, row["columns"], row["types"])),
        )
        for row in await link.fetch(_CATALOG)
    ]
