"""After any change of schema metrics the next scrape equals the catalog.

PULSE_TEST_DDL_CHANGES: the number of changes (60).
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import asyncpg

from tests.support.scrape import Scrape, as_owner, exporting

RoleUrl = Callable[[str], str]

CHANGES = int(os.environ.get("PULSE_TEST_DDL_CHANGES", "60"))
KINDS = (
    "create", "recreate", "retype", "replace", "widen", "drop", "leave", "comment", "rename", "swap", "rename_label",
    "rename_value", "revoke", "grant", "bystander",
)  # fmt: skip
SEED = 20_260_105
# SQL of a value, and the expected sample.
VALUES = [
    ("{0}", 1.0), ("{0}::numeric / 4", 0.25), ("{0}::real", 1.0), ("{0} > 0", None),
    ("{0} * interval '1 minute'", 60.0), ("to_timestamp({0})", 1.0), ("{0}::smallint", 1.0),
]  # fmt: skip
LABEL_TYPES = ("text", "name", "varchar(9)")


@dataclass(frozen=True)
class Wanted:
    """The expected samples of one view. Its first label stands before the value, the others after it."""

    labels: tuple[str, ...]
    rows: int
    value: int
    label_type: str = "text"
    help: str = ""
    value_name: str = "value"
    readable: bool = True

    @property
    def is_served(self) -> bool:
        """True if it is a metric that the exporter may read."""
        return self.readable and self.value_name == "value"

    def sql(self) -> str:
        """Return the body of the view, whose rows are those of i = 1, 2 and so on."""
        labels = [f"('no. ' || i)::{self.label_type} as {label}" for label in self.labels]
        value = f"{VALUES[self.value][0].format('i')} as {self.value_name}"
        source = f"generate_series(1, {self.rows}) i" if self.labels else "(values (1)) v (i)"
        return f"select {', '.join([*labels[:1], value, *labels[1:]])} from {source}"

    def samples(self) -> dict[tuple[str, ...], float]:
        """Return the values by the values of the labels."""
        unit = VALUES[self.value][1]
        rows = range(1, self.rows + 1 if self.labels else 2)
        return {(f"no. {i}",) * len(self.labels): 1.0 if unit is None else i * unit for i in rows}


class Schema:
    """Random changes of schema metrics, and their expected result."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._serial = 0
        self._deck: list[str] = []
        self.views: dict[str, Wanted] = {}

    def change(self) -> tuple[str, list[str]]:
        """Return the next change: its kind and its statements, in one transaction. Each kind gets a turn."""
        if not self._deck:
            self._deck = list(KINDS)
            self._random.shuffle(self._deck)
        kind = self._deck.pop()
        names = sorted(name for name, wanted in self.views.items() if self._suits(kind, wanted))
        if kind == "bystander":
            return kind, [self._bystander()]
        if kind == "create" or len(names) < 2:
            suffix = self._random.choice(["", "_total", "_seconds"])
            return "create", self._put(self._new_name() + suffix, self._random.choice([(), ("site",), ("a", "b")]))
        return kind, self._alter(kind, *self._random.sample(names, 2))

    def _suits(self, kind: str, wanted: Wanted) -> bool:
        if kind == "widen":
            return len(wanted.labels) in {1, 2} and wanted.value_name == "value"
        return bool(wanted.labels) or kind != "rename_label"

    def _alter(self, kind: str, name: str, other: str) -> list[str]:
        if "rename" in kind or kind == "swap":
            return self._rename(kind, name, other)
        if kind in {"replace", "widen", "retype", "recreate"}:
            return self._rewrite(kind, name)
        return self._readdress(kind, name)

    def _rename(self, kind: str, name: str, other: str) -> list[str]:
        wanted, new = self.views[name], self._new_name()
        match kind:
            case "rename":
                self.views[new] = self.views.pop(name)
                return [f"alter view metrics.{name} rename to {new}"]
            case "swap":
                self.views[name], self.views[other] = self.views[other], wanted
                steps = ((name, "swapped"), (other, name), ("swapped", other))
                return [f"alter view metrics.{old} rename to {new}" for old, new in steps]
            case "rename_label":
                self.views[name] = replace(wanted, labels=(new, *wanted.labels[1:]))
                return [f"alter view metrics.{name} rename column {wanted.labels[0]} to {new}"]
            case _:
                value_name = "amount" if wanted.value_name == "value" else "value"
                self.views[name] = replace(wanted, value_name=value_name)
                return [f"alter view metrics.{name} rename column {wanted.value_name} to {value_name}"]

    def _rewrite(self, kind: str, name: str) -> list[str]:
        labels = self.views[name].labels
        match kind:
            case "replace":
                return [self._change(name, rows=self._random.randint(0, 4))]
            case "widen":
                return [self._change(name, labels=(*labels, f"more_{self._new_name()}"))]
            case "retype":
                return [f"drop view metrics.{name}", *self._put(name, labels)]
            case _:
                other = self._random.choice([(), ("lane",), ("lane", "b")])
                return [f"drop view metrics.{name}", *self._put(name, other)]

    def _readdress(self, kind: str, name: str) -> list[str]:
        match kind:
            case "drop":
                del self.views[name]
                return [f"drop view metrics.{name}"]
            case "leave":
                del self.views[name]
                return [f"alter view metrics.{name} set schema public"]
            case "comment":
                words = self._random.choice(["", "New words.", "It''s \\ odd."])
                self.views[name] = replace(self.views[name], help=words.replace("''", "'"))
                return [f"comment on view metrics.{name} is " + (f"'{words}'" if words else "null")]
            case _:
                self.views[name] = replace(self.views[name], readable=kind == "grant")
                way = "to" if kind == "grant" else "from"
                return [f"{kind} select on metrics.{name} {way} pulse_exporter"]

    def _change(self, name: str, **changes: object) -> str:
        self.views[name] = replace(self.views[name], **changes)  # type: ignore[arg-type]  # fields by name
        return f"create or replace view metrics.{name} as {self.views[name].sql()}"

    def _new_name(self) -> str:
        self._serial += 1
        return f"v{self._serial}"

    def _put(self, name: str, labels: tuple[str, ...]) -> list[str]:
        draw = self._random
        self.views[name] = Wanted(
            labels, draw.randint(0, 4), draw.randrange(len(VALUES)), label_type=draw.choice(LABEL_TYPES)
        )
        return [f"create view metrics.{name} as {self.views[name].sql()}"]

    def _bystander(self) -> str:
        """Return a statement that makes an object that is no view and so no metric."""
        name = self._new_name()
        return self._random.choice(
            (
                f"create table metrics.{name} as select 1 as value",
                f"create materialized view metrics.{name} as select 1 as value",
                f"create function metrics.{name}() returns integer return 1",
            )
        )


def compare(found: Scrape, schema: Schema, shipped: set[str]) -> None:
    """Compare names, help, types, labels and samples of all test views; no other view came or went."""
    served = {name: wanted for name, wanted in schema.views.items() if wanted.is_served}
    assert {name for name, success in found.views().items() if success} == shipped | set(served)
    assert {name for name, success in found.views().items() if not success} == set(schema.views) - set(served)
    families = {f"pulse_{name.removesuffix('_total')}" for name in served}
    assert {name for name in found.names() if name.startswith("pulse_v")} == families
    for name, wanted in served.items():
        family = found.families["pulse_" + name.removesuffix("_total")]
        assert (family.type, family.documentation) == ("counter" if name.endswith("_total") else "gauge", wanted.help)
        assert {frozenset(sample.labels) for sample in family.samples} <= {frozenset(wanted.labels)}
        assert found.series(f"pulse_{name}", *wanted.labels) == wanted.samples(), name
        assert found.value("pulse_exporter_view_rows", view=name) == len(wanted.samples())


async def test_the_next_scrape_equals_the_catalog(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """After each random change: made, made anew with other columns, dropped, renamed, forbidden and more."""
    schema = Schema(SEED)
    kinds = set()
    # The view counts the statements of its own session: those for dropped views must not accumulate.
    await as_owner(conn, "create view metrics.prepared as select count(*) as value from pg_prepared_statements")
    async with exporting(role_url("pulse_exporter")) as scraper:
        shipped = set((await scraper.scrape()).views())
        for number in range(CHANGES):
            kind, statements = schema.change()
            kinds.add(kind)
            await as_owner(conn, *statements)
            found = await (scraper.scrape_text() if number % 4 == 0 else scraper.scrape())
            compare(found, schema, shipped)
            # One for each view and the catalog, and a few that the last change made obsolete.
            assert 0 < (found.value("pulse_prepared") or 0) <= len(found.views()) + 4
    assert kinds == set(KINDS)
