"""Alert rules: each is valid, has tests for firing, silence and end, and has a runbook section."""

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.migrator import ROOT
from tests.support.prometheus_rules import PROMETHEUS, TESTS, alerts, read, rules
from tests.support.promql import Parser

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def promtool(program: str, *arguments: str) -> None:
    """Run promtool and fail with its output."""
    done = subprocess.run(
        [program, *arguments], check=False, cwd=PROMETHEUS, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_rules(require: Callable[[str], str]) -> None:
    """The rule files are checked with the configuration that names them."""
    promtool(require("promtool"), "check", "config", "prometheus.yml")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_alert_fires_stays_silent_and_ends(require: Callable[[str], str]) -> None:
    """Promtool runs the cases. The next test checks that they are complete."""
    promtool(require("promtool"), "test", "rules", *(str(path) for path in TESTS))


def test_every_alert_has_a_case_of_each_kind() -> None:
    """One test has the alert silent with data, firing, and silent again with data."""
    proven = set()
    for path in TESTS:
        for test in read(path)["tests"]:
            proven |= {
                name for name in {case["alertname"] for case in test["alert_rule_test"]} if is_proven(test, name)
            }
    assert proven == set(alerts())


def is_proven(test: dict[str, Any], alert: str) -> bool:
    """Return whether the test has the alert silent with data, then firing, then silent with data."""
    moments = sorted(
        (seconds(case["eval_time"]), bool(case["exp_alerts"]))
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    )
    fires = [at for at, firing in moments if firing]
    silent = [at for at, firing in moments if not firing and shows_data(test, alert, at)]
    return bool(fires) and any(at < fires[0] for at in silent) and any(at > fires[-1] for at in silent)


def shows_data(test: dict[str, Any], alert: str, at: float) -> bool:
    """Return whether a series that the alert reads, directly or through a recording, has a sample then."""
    read_by_alert = base_metrics(alerts()[alert]["expr"])
    step = seconds(test["interval"])
    return any(
        samples[index]
        for series in test["input_series"]
        if series["series"].partition("{")[0] in read_by_alert
        for samples in [presence(str(series["values"]))]
        for index in [int(at // step)]
        if index < len(samples)
    )


def base_metrics(text: str) -> set[str]:
    """Return the metrics that an expression depends on."""
    recorded = {rule["record"]: rule["expr"] for rule in rules("recording")}
    found = set()
    for metric in Parser(text, {}).metrics:
        found |= base_metrics(recorded[metric]) if metric in recorded else {metric}
    return found


def test_a_missing_metric_of_a_paging_rule_raises_an_alert() -> None:
    """A rule over a missing metric is silent, so another rule reports the absence."""
    paging = [rule["expr"] for rule in alerts().values() if rule["labels"]["severity"] == "page"]
    stood_on = set().union(*map(base_metrics, paging))
    # These are absent before the first request, or without a health monitor.
    may_be_away = {name for name in stood_on if name.startswith("pulse_http_")} | {"pulse_service_up"}
    missed = base_metrics(alerts()["PulseMetricMissing"]["expr"])
    assert stood_on - may_be_away - missed == {"up"}


def presence(values: str) -> list[bool]:
    """Parse promtool's notation and return whether there is a sample at each step."""
    found: list[bool] = []
    for part in values.split():
        value, _, times = part.partition("x")
        count = int(times) + ("_" not in value) if times else 1
        found.extend([value not in {"_", "stale"}] * count)
    return found


def seconds(text: str) -> float:
    """Return a duration like 1h30m in seconds."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


def test_every_alert_says_what_it_means_and_where_to_look() -> None:
    """Severity is page or ticket. The runbook has exactly one section per alert."""
    sections = re.findall(r"^### (Pulse\w+)$", RUNBOOKS, re.MULTILINE)
    assert sections == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"}), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"


def runbook_sections() -> Iterator[tuple[str, str]]:
    """Yield name and text of each section."""
    for section in re.split(r"^### ", RUNBOOKS, flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        yield name, text.split("\n## ")[0]


def test_every_runbook_answers_the_same_five_questions() -> None:
    """An operator on call finds each answer at the same place."""
    questions = ["**Means**", "**Users feel**", "**Look**", "**Mend**", "**Over**"]
    wrong = {
        name: found
        for name, text in runbook_sections()
        if (found := re.findall(r"\*\*[A-Z]\w+(?: \w+)?\*\*", text)) != questions
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("pulse_none > 0", "nobody shows pulse_none"),
        ('up{pod="x"} == 0', "up has no label pod"),
        ("sum by (pod) (up)", "sum has no label pod"),
        ("up == 0 and max by (job) (up) == 1", "and never matches"),
        ("up and on (pod) up", "the left of and has no label pod"),
        ("histogram_quantile(0.9, sum by (job) (rate(up[5m])))", "histogram_quantile has no label le"),
        ('label_replace(up, "a", "$1", "pod", "(.*)")', "label_replace has no label pod"),
    ],
)
def test_what_can_never_hold_is_found(expression: str, fault: str) -> None:
    """The checks of names and labels find each kind of invalid expression."""
    known = {"up": frozenset(("job", "instance"))}
    assert [found for found in Parser(expression, known).faults if found.startswith(fault)] != []
    assert Parser("up == 0 and on (job) max by (job) (up) == 1 or absent(up{job='a'})", known).faults == []
