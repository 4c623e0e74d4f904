"""Settings are validated, and docs/settings.md matches the code."""

import os

import pytest
from pydantic_settings import BaseSettings

from exporter.login import ExporterLoginSettings
from services.shared.settings import EvaluatorSettings, UiSettings
from tests.support import settings_page

URL = "postgresql://pulse_app@127.0.0.1/pulse"


def test_the_page_says_what_the_code_says() -> None:
    """docs/settings.md is written from the settings classes."""
    if os.environ.get("PULSE_TEST_REGENERATE"):
        settings_page.PAGE.write_text(settings_page.render(), encoding="utf-8")
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.render()


def test_settings_classes_are_named_settings() -> None:
    """A reader who meets the name knows that the object comes from PULSE_* variables."""

    def below(one: type[BaseSettings]) -> set[type[BaseSettings]]:
        return {one}.union(*(below(other) for other in one.__subclasses__()))

    found = {each for each in below(BaseSettings) if each.__module__.split(".")[0] in ("services", "exporter")}
    assert {ExporterLoginSettings, UiSettings} < found
    assert [each.__name__ for each in found if not each.__name__.endswith("Settings")] == []


def test_every_fault_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each bad variable is named with what is wrong, never with its value."""
    monkeypatch.setenv("PULSE_DATABASE_URL", "mysql://root:hunter2@db/pulse")
    monkeypatch.setenv("PULSE_POOL_MAX_SIZE", "many")
    with pytest.raises(SystemExit) as stopped:
        EvaluatorSettings.load()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["PULSE_DATABASE_URL", "PULSE_POOL_MAX_SIZE"]
    assert "hunter2" not in "".join(lines)


def test_a_fault_within_a_json_value_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No variable is called PULSE_OIDC_ROLE_MAP_X."""
    monkeypatch.setenv("PULSE_DATABASE_URL", "postgresql://db/pulse")
    monkeypatch.setenv("PULSE_OIDC_ROLE_MAP", '{"X": "boss"}')
    with pytest.raises(SystemExit):
        UiSettings.load()
    assert capsys.readouterr().err.startswith("ui_iot: PULSE_OIDC_ROLE_MAP: X: Input should be 'viewer'")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """VARIABLE= in a unit file means the default."""
    monkeypatch.setenv("PULSE_DATABASE_URL", URL)
    monkeypatch.setenv("PULSE_LISTEN_URL", "")
    monkeypatch.setenv("PULSE_PORT", "")
    settings = EvaluatorSettings.load()
    assert (settings.port, settings.listen_dsn) == (8082, URL)


def test_listening_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By its own word; any other value that is no URL is a fault."""
    monkeypatch.setenv("PULSE_DATABASE_URL", URL)
    monkeypatch.setenv("PULSE_LISTEN_URL", "off")
    assert EvaluatorSettings.load().listen_dsn is None
    monkeypatch.setenv("PULSE_LISTEN_URL", "none")
    with pytest.raises(SystemExit):
        EvaluatorSettings.load()
    assert "PULSE_LISTEN_URL" in capsys.readouterr().err
