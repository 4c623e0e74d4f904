"""Rules of the codebase that its files can check."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.local.stack.venv import installers_of
from tests.support.migrator import ROOT

MODULES = [path for room in ("services", "exporter", "migrations") for path in (ROOT / room).rglob("*.py")]
LONGEST_MODULE = 250
LONGEST_FUNCTION = 40
MOST_POSITIONAL = 6
VAGUE = {"utils", "helpers", "common", "models", "types", "constants", "misc"}
# Modules that several services need. A module that one service uses belongs to that service.
SHARED = {
    "audit",
    "audit_settings",
    "audit_writer",
    "backoff",
    "channels",
    "destination",
    "connecting",
    "db",
    "delivery_settings",
    "door",
    "egress",
    "http_client",
    "limit_settings",
    "ingest_settings",
    "listening",
    "log_repeats",
    "logging",
    "metrics",
    "oidc_settings",
    "ops_settings",
    "otlp",
    "process",
    "sealed_log",
    "secret_box",
    "server",
    "settings",
    "tenant_id",
    "topic_settings",
    "tracing",
    "visible_text",
    "web",
    "web_settings",
    "worker",
    "write_once",
}

# The two modules in which Python holds more SQL than a call or a select, and the reasons:
SQL_IN_PYTHON = {
    "migrations": "it is what migrations are",
    "services/shared/audit_writer/": "COPY has no form of a function call",
}
_KINDS = "table|view|index|schema|function|procedure|trigger|role|sequence|type|policy|extension"
STATEMENT = re.compile(
    r"\s*(insert into|update [\w.]+ set|delete from|merge into|with \w+ as|truncate table|"
    rf"(create|alter|drop) ({_KINDS}))\b",
    re.IGNORECASE,
)


def code_lines(node: ast.AST) -> set[int]:
    """Return the numbers of the lines with code: no blank lines, comments or docstrings."""
    docstrings: set[int] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant) and isinstance(inner.value.value, str):
            docstrings.update(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
    lines = {
        line
        for inner in ast.walk(node)
        if isinstance(inner, ast.expr | ast.stmt)
        for line in (inner.lineno, inner.end_lineno or inner.lineno)
    }
    return lines - docstrings


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def name(path: Path) -> str:
    """Return a path relative to the checkout."""
    return path.relative_to(ROOT).as_posix()


def test_modules_are_small() -> None:
    """Split a module with more than 250 lines."""
    sizes = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: size for path, size in sizes.items() if size > LONGEST_MODULE} == {}


def test_functions_are_small() -> None:
    """Decide in one function, act in another."""
    sizes = {f"{name(path)}:{node.name}": len(code_lines(node)) for path in MODULES for node in functions(path)}
    assert {where: size for where, size in sizes.items() if size > LONGEST_FUNCTION} == {}


def test_modules_are_named_for_the_one_thing_in_them() -> None:
    """A vague name collects unrelated code."""
    assert [name(path) for path in MODULES if path.stem in VAGUE or path.parent.name in VAGUE] == []


def test_no_class_name_occurs_twice() -> None:
    """A search for a class finds one definition."""
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{name(path)}:{node.lineno}")
    assert len(places) > 200
    assert {found: where for found, where in places.items() if len(where) > 1} == {}


def test_functions_take_few_arguments_by_position() -> None:
    """More than that are mixed up in a call: put a star before the others, so that callers name them."""
    counts = {
        f"{name(path)}:{node.name}": len(node.args.posonlyargs) + len(node.args.args)
        for path in MODULES
        for node in functions(path)
    }
    assert len(counts) > 1000
    assert {where: count for where, count in counts.items() if count > MOST_POSITIONAL} == {}


def test_shared_is_a_closed_list() -> None:
    """A module enters services/shared only when two services use it, and then this list changes in review."""
    found = (ROOT / "services" / "shared").iterdir()
    rooms = {path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == SHARED


def test_python_holds_no_sql_beyond_a_call_or_a_select() -> None:
    """Every write is a function of sql/."""
    found = [
        f"{name(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.match(node.value)
        if not any(name(path).startswith(place) for place in SQL_IN_PYTHON)
    ]
    assert found == []


def test_tests_never_sleep() -> None:
    """A test waits for a signal, polls with a deadline, or sets the clock; sleep(0) only lets others run."""
    sleeps = re.compile(r"\b(asyncio|time)\.sleep\((?!0\))")
    # The tools of tests/chaos run for a length of real time.
    modules = [path for path in (ROOT / "tests").rglob("*.py") if "chaos" not in path.parts or path.stem[:5] == "test_"]
    found = {name(path) for path in modules if sleeps.search(path.read_text(encoding="utf-8"))}
    # The server of the second file sends its answer slowly on purpose.
    assert found == {"tests/support/wait.py", "tests/shared/test_http_client.py"}


def test_no_test_imports_another_test() -> None:
    """Shared code belongs in tests/support, or in a fixture in the conftest.py of its room."""
    imports = re.compile(r"^(?:from|import) tests\.(?:\w+\.)*(?:test_\w+|conftest)\b", re.MULTILINE)
    found = {
        f"{name(path)}: {line}"
        for path in (ROOT / "tests").rglob("*.py")
        for line in imports.findall(path.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_the_lock_names_no_registry() -> None:
    """The lock pins hashes; the registry is each machine's own setting."""
    pinned = {}
    for name in ("requirements.lock", "requirements-dev.lock"):
        lock = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in lock
        requirements = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
        assert [line for line in requirements if "==" not in line] == []
        assert lock.count("--hash=sha256:") >= len(requirements)
        pinned[name] = dict(line.partition("==")[::2] for line in requirements)
    running, developing = pinned.values()
    assert developing.items() > running.items(), "the development lock has the run-time packages, in the same versions"
    assert {"pip", "setuptools"} <= running.keys()
    installers = installers_of((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert (installers.count("=="), installers.count("--hash=") >= 2) == (2, True)
    assert {"pytest", "hypothesis", "mypy", "ruff", "jsonschema"} & running.keys() == set()


def test_nothing_installs_a_strangers_pulse() -> None:
    """The package index has another project called pulse."""
    files = (
        path
        for path in ROOT.rglob("*")
        if path.suffix in (".md", ".py", ".toml", ".sql", ".yml", "") and path.is_file()
    )
    tracked = (path for path in files if not {".venv", ".git", ".pulse", "tests"} & set(path.relative_to(ROOT).parts))
    install = re.compile(r"""pip3? install[^\n]*\s['"]?pulse(\[|['"`\s]|$)""")
    found = {name(path) for path in tracked if install.search(path.read_text(encoding="utf-8", errors="replace"))}
    assert found == set()


def test_a_missing_program_skips_loudly_and_fails_in_ci(
    require: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside CI a skip names the missing program; in CI no test is skipped."""
    assert require("sh").endswith("/sh")
    monkeypatch.delenv("PULSE_TEST_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program is not installed: .* NOT tested"):
        require("no-such-program")
    monkeypatch.setenv("PULSE_TEST_REQUIRE", "all")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed and PULSE_TEST_REQUIRE=all"):
        require("no-such-program")


def test_scripts_parse() -> None:
    """The entry script is plain sh, CI is bash."""
    for shell, script in (("sh", ROOT / "pulse"), ("bash", ROOT / ".ci" / "run")):
        subprocess.run([shell, "-n", str(script)], check=True)
        assert script.stat().st_mode & 0o111
