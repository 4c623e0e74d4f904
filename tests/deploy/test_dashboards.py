"""The committed dashboards equal their code and contain the members that Grafana requires."""

import json

from deploy.grafana.dashboards import render
from tests.support.prometheus_rules import GRAFANA, panel_expressions


def test_the_files_are_what_the_code_makes() -> None:
    """A manual edit would be lost, so it fails here (python -m deploy.grafana.dashboards)."""
    assert {path.name: path.read_text(encoding="utf-8") for path in GRAFANA.glob("*.json")} == render()


def test_every_panel_asks_the_chosen_prometheus_and_says_its_unit() -> None:
    """Grafana distinguishes panels by number, and a panel without a unit is unreadable."""
    assert list(panel_expressions())
    for text in render().values():
        board = json.loads(text)
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        assert len({(panel["type"], panel["title"]) for panel in panels}) == len(panels)
        for panel in panels:
            if panel["type"] != "text":
                assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
                assert panel["fieldConfig"]["defaults"]["unit"]
                assert panel["targets"], panel["title"]
        used = json.dumps(board["panels"])
        for variable in board["templating"]["list"]:
            assert f"${variable['name']}" in used or f"${{{variable['name']}}}" in json.dumps(board), variable["name"]
