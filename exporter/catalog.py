"""The current views of schema metrics, from the catalog."""

from dataclasses import dataclass

from exporter.link import Link

# A domain has the type that it is based on, an enum the type 'enum', and a type outside pg_catalog its full name. The
# oldest view comes first: if two names clash, the newer one is refused. Columns and comments are looked up view by
# view, because a join would read those of a thousand partitions as well.
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
    """A column. type is the name of a built-in type, 'enum', or the full name of another type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class View:
    """A view of schema metrics. comment is '' if it has none."""

    name: str
    comment: str
    readable: bool
    columns: tuple[Column, ...]


async def read_catalog(link: Link) -> list[View]:
    """Return the views of schema metrics, oldest first."""
    return [
        View(
            name=row["name"],
            comment=row["comment"],
            readable=row["readable"],
            columns=tuple(map(Column, row["columns"], row["types"])),
        )
        for row in await link.fetch(_CATALOG)
    ]
