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

Every setting is an environment variable that is read at start. A process with a bad value prints one line for it and
exits with 2. Each process has its own class in `services/shared/settings.py` and sees only its own variables.
"""
LOCAL = """\
## The `pulse` program, migrations and tests

| Variable | Default | |
|---|---|---|
| `PULSE_HOME` | `.pulse` | Directory of the data, keys, logs and state of `./pulse`. |
| `PULSE_MIGRATION_URL` | `PULSE_DATABASE_URL` | URL of the database for migrations, as a role that may create roles. |
| `PULSE_AUDIT_DATABASE_URL` |  | URL of the database as `pulse_auditor`, for `pulse audit`. |
| `OTEL_EXPORTER_OTLP_ENDPOINT` |  | Every process: collector that receives its spans (architecture.md). |
| `PULSE_OPERATOR_DATABASE_URL` |  | URL of the database as `pulse_operator`, for `pulse psql` (operate.md). |
| `PULSE_ROLE_PREFIX` | `pulse_` | Prefix of the names of the database roles (operate.md). |
| `PULSE_UI_PASSWORD`, `PULSE_EVALUATOR_PASSWORD` |  | Passwords of the roles that a migration creates (operate.md). |
| `PULSE_DISPATCHER_PASSWORD`, `PULSE_DELIVERY_PASSWORD` |  | The same. |
| `PULSE_OPS_PASSWORD`, `PULSE_AUDITOR_PASSWORD` |  | The same. |
| `PULSE_EXPORTER_PASSWORD`, `PULSE_OPERATOR_PASSWORD` |  | The same. |
| `PULSE_APP_PASSWORD` |  | The same, for the deprecated login of four services. |
| `PULSE_EXPORTER_CONNECTION_LIMIT` | `2` | Connection limit that a migration sets for `pulse_exporter`. |
| `PULSE_PG_USER` | `postgres`, else `pulse-pg` | As root: unprivileged user of the embedded Postgres. |
| `PULSE_PYTHON` | `python3` | Python that creates `.venv`. |
| `PULSE_DEBUG` |  | `1` shows the traceback of a failed `./pulse` command. |
| `PULSE_TEST_URL` |  | URL of a superuser on a server for the tests. Default: the tests start a server. |
| `PULSE_TEST_POSTGRES_BIN` |  | Directory of the Postgres programs for the tests' server. |
| `PULSE_TEST_REQUIRE` |  | `all`: fail, instead of skip, a test whose program is missing. |
| `PULSE_TEST_DDL_CHANGES` | `60` | Number of changes of views in the test of the exporter's reaction. |
| `PULSE_TEST_SCRAPES` | `120` | Number of scrapes in the test of snapshots. |
| `PULSE_TEST_HISTORY_ROWS` | `80000` | Number of finished rows in tests that count the rows that queries read. |
| `PULSE_TEST_HTTP_REQUESTS` | `600` | Number of requests in the test of the HTTP metrics. |
| `PULSE_TEST_HOSTILE_REQUESTS` | `3000` | Number of hostile requests that must create no series. |
| `PULSE_TEST_GENERATED_APPS` | `60` | Number of random applications in the test of the path label. |
| `PULSE_TEST_FUZZED_HEADERS` | `5000` | Number of random header values in the test of log lines. |
| `PULSE_BENCH_URL` |  | URL of an empty database for benchmarks. Default: an embedded server. |
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
