"""docs/settings.md, rendered from the settings classes; PULSE_TEST_REGENERATE=1 writes the file."""

import ast
import inspect
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from services.shared import settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"
HEAD = """\
# Settings

Every setting is an environment variable, read once at start; a bad value is named in one line and the process exits
with 2.
Each process has its own class in `services/shared/settings.py` and sees only its own variables.
"""
LOCAL = """\
## The local stack

| Variable | Default | |
|---|---|---|
| `PULSE_HOME` | `.pulse` | Where `./pulse` keeps its data, keys, logs and state. |
| `PULSE_MIGRATION_URL` | `PULSE_DATABASE_URL` | Who migrates: a role that may create roles and schemas. |
| `PULSE_AUDIT_DATABASE_URL` |  | The database as `pulse_auditor`, for `pulse audit`. |
| `OTEL_EXPORTER_OTLP_ENDPOINT` |  | Every process: the collector that gets its spans, see architecture.md. |
| `PULSE_OPERATOR_DATABASE_URL` |  | The database as `pulse_operator`, for `pulse psql`; see operate.md. |
| `PULSE_ROLE_PREFIX` | `pulse_` | First part of the names of the database roles; see operate.md. |
| `PULSE_UI_PASSWORD`, `PULSE_EVALUATOR_PASSWORD` |  | Passwords of roles that a migration makes; see operate.md. |
| `PULSE_DISPATCHER_PASSWORD`, `PULSE_DELIVERY_PASSWORD` |  | Likewise. |
| `PULSE_OPS_PASSWORD`, `PULSE_AUDITOR_PASSWORD` |  | Likewise. |
| `PULSE_EXPORTER_PASSWORD`, `PULSE_OPERATOR_PASSWORD` |  | Likewise. |
| `PULSE_APP_PASSWORD` |  | Likewise, of the one login for four services, which is deprecated. |
| `PULSE_EXPORTER_CONNECTION_LIMIT` | `2` | Connections that a migration allows `pulse_exporter`. |
| `PULSE_PG_USER` | `postgres`, else `pulse-pg` | As root: the unprivileged user that runs the embedded Postgres. |
| `PULSE_PYTHON` | `python3` | The Python that makes `.venv`. |
| `PULSE_DEBUG` |  | `1` shows the traceback of a failed `./pulse` command. |
| `PULSE_TEST_URL` |  | A server for the tests instead of their own: a superuser's URL. |
| `PULSE_TEST_POSTGRES_BIN` |  | Directory of the Postgres programs of that server. |
| `PULSE_TEST_REQUIRE` |  | `all`: a test that misses a program fails instead of being skipped. |
| `PULSE_TEST_DDL_CHANGES` | `60` | Changes of views that the exporter must follow in its test. |
| `PULSE_TEST_SCRAPES` | `120` | Scrapes that must each be one snapshot in theirs. |
| `PULSE_TEST_HISTORY_ROWS` | `80000` | Finished rows where tests count what queries read; one waits for 80 of them. |
| `PULSE_TEST_HTTP_REQUESTS` | `600` | Requests that the HTTP metrics are compared with. |
| `PULSE_TEST_HOSTILE_REQUESTS` | `3000` | Hostile requests that must make no series. |
| `PULSE_TEST_GENERATED_APPS` | `60` | Applications by chance whose routes the path label is compared with. |
| `PULSE_TEST_FUZZED_HEADERS` | `5000` | Header values that the log lines are tried with. |
| `PULSE_BENCH_URL` |  | An empty database for benchmarks instead of an embedded server. |
"""


def render() -> str:
    """Return the page."""
    classes = (
        settings.Settings,
        settings.AuditSettings,
        settings.UiSettings,
        settings.EvaluatorSettings,
        settings.DispatcherSettings,
        settings.DeliverySettings,
        settings.OpsSettings,
        settings.ExporterSettings,
    )
    sections = [_section(part) for each in classes for part in (each, *_topics(each)) if _field_texts(part)]
    return "\n".join([HEAD, *sections, LOCAL])


def _topics(each: type[settings.Settings]) -> list[Any]:
    """Return the classes from which a process gets the settings of one topic each."""
    return [base for base in each.__bases__ if not issubclass(base, settings.Settings)]


def _section(each: type[BaseSettings]) -> str:
    described = (each.__doc__ or "").strip()
    if each is settings.Settings:
        title = "Every process"
    elif each in _topics(settings.Settings):
        title = "Every process: " + described.removesuffix(".")
    elif not issubclass(each, settings.Settings):
        title = described.removesuffix(".")
    else:
        title = f"{each.service}: {described}"
    texts = _field_texts(each)
    own = [name for name in each.model_fields if name in texts]
    rows = [f"| `{_variable(each, name)}` | {_default(each, name)} | {texts[name]} |" for name in own]
    return "\n".join([f"## {title}", "", "| Variable | Default | |", "|---|---|---|", *rows, ""])


def _variable(each: type[BaseSettings], name: str) -> str:
    alias: Any = each.model_fields[name].validation_alias
    return str(alias.choices[0]) if alias is not None else f"PULSE_{name.upper()}"


def _default(each: type[BaseSettings], name: str) -> str:
    default = each.model_fields[name].default
    if default is PydanticUndefined:
        return "required" if name == "database_url" else ""
    if isinstance(default, tuple):
        default = ",".join(default) or None
    return "" if default is None else f"`{default}`"


def _field_texts(each: type[BaseSettings]) -> dict[str, str]:
    """Return the string below each field of a class; empty where there is none."""
    source = inspect.getsourcefile(each)
    assert source is not None
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == each.__name__).body
    texts: dict[str, str] = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and "ClassVar" not in ast.dump(node):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            text = following.value.value if is_text else ""  # type: ignore[union-attr]
            texts[node.target.id] = " ".join(str(text).split())
    return texts
