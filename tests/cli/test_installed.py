"""`pip install .`: what an installation holds, and that it migrates a database and runs without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import psycopg
import pytest

from tests.support.migrator import ROOT

SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "services", "exporter", "migrations", "sql")


def installed(directory: Path) -> Path:
    """Build Pulse without its checkout and install it into a new environment; the environment's directory.

    Its dependencies are those of this environment: nothing is downloaded.
    """
    source = directory / "source"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    made = directory / "environment"
    venv.create(made, with_pip=False)
    [packages] = made.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(made / "bin" / "python"), "install", "-qq"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-build-isolation", str(source)], check=True)
    shutil.rmtree(source)
    return made


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_installation_migrates_a_database_and_needs_no_checkout(tmp_path: Path, empty_url: str) -> None:
    made = installed(tmp_path)
    [packages] = made.glob("lib/python3*/site-packages")
    for name in ("services", "exporter", "migrations"):
        kept = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".sql")}
        assert len(kept) > 10
        assert {path for path in kept if not (packages / path).exists()} == set()
    layer = {path.relative_to(ROOT / "sql") for path in (ROOT / "sql").rglob("*.sql")}
    assert len(layer) > 300
    assert {path.relative_to(packages / "migrations/sql") for path in packages.glob("migrations/sql/**/*.sql")} == layer
    [about] = packages.glob("pulse_fleet_alerting-*.dist-info")
    assert "\nLicense-Expression: Apache-2.0\n" in (about / "METADATA").read_text()
    assert (about / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for other in ("tests", "benchmarks", "deploy", "sql"):
        assert not (packages / other).exists()

    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG", "PYTHON"))}
    environment = {**inherited, "HOME": str(tmp_path), "PULSE_DATABASE_URL": empty_url}
    environment.pop("XDG_STATE_HOME", None)

    def run(program: str, *arguments: str, status: int = 0) -> str:
        command = [str(made / "bin" / program), *arguments]
        done = subprocess.run(command, check=False, cwd="/", env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("pulse", "migrate")
    assert run("pulse", "migrate").startswith("nothing to do")
    with psycopg.connect(empty_url) as session:
        assert session.execute(
            "select count(*) > 100 from pg_proc where pronamespace = 'audit'::regnamespace"
        ).fetchone()
        [newest] = session.execute("select version_num from alembic_version").fetchone() or [None]
    alembic = ("-P", "-m", "alembic", "-c", str(packages / "migrations" / "alembic.ini"))
    assert f"{newest} (head)" in run("python", *alembic, "current")
    assert "No new upgrade operations detected" in run("python", *alembic, "check")
    findings = "import os; from migrations.layer_check import *; print(read_findings(os.environ['PULSE_DATABASE_URL']))"
    assert run("python", "-P", "-c", findings) == "Findings(faults=[], notes=[])\n"
    run("pulse", "tenant", "create", "acme")
    assert run("pulse", "tenant", "list").startswith("acme")
    assert not (packages / ".pulse").exists()
    assert run("pulse", "status", status=1) == "pulse: The stack does not run; start it with pulse up.\n"
    assert run("pulse", "test", status=1) == "pulse: an installed Pulse has no tests: run this in a checkout\n"
    assert "no benchmarks: run this in a checkout" in run("pulse", "bench", "http", status=1)
    assert "no chaos runs: run this in a checkout" in run("pulse", "chaos", "audit", "--minutes", "1", status=1)
