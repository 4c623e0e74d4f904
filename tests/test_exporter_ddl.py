"""After any change of schema metrics the next scrape equals the catalog."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import asyncpg

from tests.scraping import Scrape, as_owner, exporting

RoleUrl = Callable[[str], str]

CHANGES = 50
KINDS = ("create", "recreate", "replace", "drop", "comment", "rename", "rename_column")
SEED = 20_260_105
# SQL of a value, and the sample it must become.
VALUES = [
    ("{0}", 1.0), ("{0}::numeric / 4", 0.25), ("{0}::real", 1.0), ("{0} > 0", None),
    ("{0} * interval '1 minute'", 60.0), ("to_timestamp({0})", 1.0), ("{0}::smallint", 1.0),
]  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What a scrape must show of one view."""

    label: str
    rows: int
    value: int
    help: str = ""

    def sql(self) -> str:
        """The body of the view, whose rows are those of i = 1, 2 and so on."""
        label = f"'no. ' || i as {self.label}, " if self.label else ""
        source = f"generate_series(1, {self.rows}) i" if self.label else "(values (1)) v (i)"
        return f"select {label}{VALUES[self.value][0].format('i')} as value from {source}"

    def samples(self) -> dict[tuple[str, ...], float]:
        """Values by the value of the label."""
        unit = VALUES[self.value][1]
        rows = range(1, self.rows + 1 if self.label else 2)
        return {(f"no. {i}",) if self.label else (): 1.0 if unit is None else i * unit for i in rows}


class Schema:
    """Random changes of schema metrics, and what they must come to."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._serial = 0
        self.views: dict[str, Wanted] = {}

    def change(self) -> tuple[str, list[str]]:
        """The next change: its kind and its statements, in one transaction."""
        kind = self._random.choice(KINDS) if len(self.views) > 1 else "create"
        if kind == "create":
            return kind, self._put(self._new_name() + self._random.choice(["", "_total", "_seconds"]), drop=False)
        names = sorted(name for name, wanted in self.views.items() if wanted.label or kind != "rename_column")
        if not names:
            return self.change()
        return kind, self._alter(kind, self._random.choice(names))

    def _alter(self, kind: str, name: str) -> list[str]:
        wanted = self.views[name]
        match kind:
            case "replace":
                self.views[name] = replace(wanted, rows=self._random.randint(0, 4))
                return [f"create or replace view metrics.{name} as {self.views[name].sql()}"]
            case "drop":
                del self.views[name]
                return [f"drop view metrics.{name}"]
            case "comment":
                words = self._random.choice(["", "New words.", "It''s \\ odd."])
                self.views[name] = replace(wanted, help=words.replace("''", "'"))
                return [f"comment on view metrics.{name} is '{words}'"]
            case "rename":
                new = self._new_name()
                self.views[new] = self.views.pop(name)
                return [f"alter view metrics.{name} rename to {new}"]
            case "rename_column":
                new = "zone" if wanted.label != "zone" else "area"
                self.views[name] = replace(wanted, label=new)
                return [f"alter view metrics.{name} rename column {wanted.label} to {new}"]
            case _:
                return self._put(name, drop=True)

    def _new_name(self) -> str:
        self._serial += 1
        return f"v{self._serial}"

    def _put(self, name: str, *, drop: bool) -> list[str]:
        label = self._random.choice(["", "site", "lane", "kind"])
        wanted = Wanted(label, self._random.randint(0, 4), self._random.randrange(len(VALUES)))
        self.views[name] = wanted
        return [*([f"drop view metrics.{name}"] if drop else []), f"create view metrics.{name} as {wanted.sql()}"]


def compare(found: Scrape, schema: Schema, shipped: set[str]) -> None:
    """Names, help, types, labels and samples of all test views; no other view came or went."""
    assert {name for name, success in found.views().items() if success} == shipped | set(schema.views)
    assert {name for name, success in found.views().items() if not success} == set()
    for name, wanted in schema.views.items():
        counter = name.endswith("_total")
        family = found.families["pulse_" + name.removesuffix("_total")]
        assert (family.type, family.documentation) == ("counter" if counter else "gauge", wanted.help)
        labels = [wanted.label] if wanted.label else []
        assert found.series(f"pulse_{name}", *labels) == wanted.samples(), name
        assert found.value("pulse_exporter_view_rows", view=name) == len(wanted.samples())


async def test_the_next_scrape_equals_the_catalog(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """After each of 50 random changes: created, made anew with other columns and types, replaced, dropped, renamed."""
    schema = Schema(SEED)
    kinds = set()
    async with exporting(role_url("pulse_exporter")) as scraper:
        shipped = set((await scraper.scrape()).views())
        for _ in range(CHANGES):
            kind, statements = schema.change()
            kinds.add(kind)
            await as_owner(conn, *statements)
            compare(await scraper.scrape(), schema, shipped)
            compare(await scraper.scrape_text(), schema, shipped)
    assert kinds == set(KINDS)
