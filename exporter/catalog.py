"""The views of schema metrics as the catalog has them right now."""

from dataclasses import dataclass

from exporter.link import Link

# Domains count as what they are made of, enums as 'enum', types that Postgres does not bring as their full name.
# Oldest view first: where two names clash, the newcomer gives way.
_CATALOG = """
select
  c.relname::text as name,
  coalesce(d.description, '') as comment,
  has_table_privilege(c.oid, 'select') as readable,
  coalesce(array_agg(a.attname::text order by a.attnum) filter (where a.attnum is not null), '{}') as columns,
  coalesce(
    array_agg(
      case
        when b.typtype = 'e' then 'enum'
        when b.typnamespace = 'pg_catalog'::regnamespace then b.typname::text
        else format_type(b.oid, null)
      end
      order by a.attnum
    ) filter (where a.attnum is not null),
    '{}'
  ) as types
from pg_class c
left join pg_description d on (d.objoid, d.classoid, d.objsubid) = (c.oid, 'pg_class'::regclass, 0)
left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_type t on t.oid = a.atttypid
left join pg_type b on b.oid = case t.typtype when 'd' then t.typbasetype else t.oid end
where c.relnamespace = (select oid from pg_namespace where nspname = 'metrics')
  and c.relkind = 'v'
group by c.oid, c.relname, d.description
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
