"""Prometheus rules, their tests and the dashboards in deploy/."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.migrator import ROOT
from tests.support.promql import TARGET, Parser

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))

# The metrics that Prometheus makes itself.
OWN = {"up": TARGET, "ALERTS": frozenset(("alertname", "alertstate", "severity"))}


@dataclass(frozen=True)
class Expression:
    """A PromQL expression and its place. shown: labels that the surrounding text names."""

    where: str
    text: str
    shown: frozenset[str]


def read(path: Path) -> Any:
    """Return a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@cache
def rules(name: str) -> tuple[Mapping[str, Any], ...]:
    """Return the rules of rules/<name>.yml in their order."""
    return tuple(rule for group in read(PROMETHEUS / "rules" / f"{name}.yml")["groups"] for rule in group["rules"])


def alerts() -> dict[str, Mapping[str, Any]]:
    """Return the alert rules by name."""
    return {rule["alert"]: rule for rule in rules("alerts")}


def rule_expressions() -> Iterator[Expression]:
    """Return the expressions of all alerts."""
    for name, rule in alerts().items():
        words = " ".join(rule["annotations"].values())
        yield Expression(name, rule["expr"], frozenset(re.findall(r"\$labels\.(\w+)", words)))


def panel_expressions() -> Iterator[Expression]:
    """Return the expressions of all panels and of the variables that are queries."""
    for path in sorted(GRAFANA.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                legend = frozenset(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                yield Expression(f"{path.name}: {panel['title']}", target["expr"], legend)
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
                yield Expression(f"{path.name}: ${variable['name']}", selector, frozenset({label}))


def with_recorded(known: Mapping[str, frozenset[str]]) -> tuple[dict[str, frozenset[str]], list[str]]:
    """Return the labels of the known and the recorded metrics, and the faults in the recording rules."""
    everything = {**OWN, **known}
    faults: list[str] = []
    for rule in rules("recording"):
        parsed = Parser(rule["expr"], everything)
        faults.extend(f"{rule['record']}: {fault}" for fault in parsed.faults)
        everything[rule["record"]] = parsed.labels or frozenset()
    return everything, faults


def faults_of(expression: Expression, known: Mapping[str, frozenset[str]]) -> list[str]:
    """Return the reasons why the expression can never match, and each shown label that its result lacks."""
    parsed = Parser(expression.text, known)
    missing = expression.shown - (parsed.labels or frozenset())
    return [
        *(f"{expression.where}: {fault}" for fault in parsed.faults),
        *(f"{expression.where}: the result has no label {label}" for label in sorted(missing)),
    ]
