"""The recipes of CONTRIBUTING.md, each followed literally on a copy of the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from services.shared.channels import KINDS
from tests.support.migrator import ROOT

RECIPES = Path(__file__).parent / "recipes"
# The tests that a forgotten file must fail.
CHECKED = {
    "channel": (
        "tests/delivery_worker/test_channel_kinds.py",
        "tests/delivery_worker/test_channels_sending.py",
        "tests/delivery_worker/test_mattermost.py",
        "tests/migrations/test_migrations.py::test_each_revision_goes_up_down_and_up_again_with_an_identical_schema",
        "tests/migrations/test_migrations.py::test_released_revisions_are_frozen",
    ),
    "timer": (
        "tests/ops_worker/test_device_counter.py",
        "tests/shared/test_worker.py::test_the_page_lists_the_loops_of_each_worker",
        "tests/sql/test_service_roles.py",
    ),
}
ALWAYS = (
    "tests/test_house.py",
    "tests/sql/test_catalog.py",
    "tests/sql/test_privileges.py",
    "tests/shared/test_settings.py",
)


def copy_checkout(target: Path) -> None:
    """Copy the files that git tracks, or would add, into a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    subprocess.run(["git", "init", "-q", "."], check=True, cwd=target)


def run_pytest(checkout: Path, *arguments: str, regenerate: bool = False) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PULSE_TEST_REGENERATE": "1"} if regenerate else {})
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "600", *arguments],
        check=False,
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )


def follow(recipe: str, checkout: Path) -> None:
    """Apply the changes of a recipe in tests/system/recipes."""
    steps = tomllib.loads((RECIPES / f"{recipe}.toml").read_text(encoding="utf-8"))
    newest = max(path.name[:4] for path in (checkout / "migrations" / "versions").glob("[0-9]*.py"))
    filled = {
        "{number}": f"{int(newest) + 1:04}",
        "{previous}": newest,
        "{admitted}": ", ".join(f"'{kind}'" for kind in KINDS),
    }

    def fill(text: str) -> str:
        for name, value in filled.items():
            text = text.replace(name, value)
        return text

    for step in steps["file"]:
        (checkout / fill(step["path"])).write_text(fill(step["text"]).lstrip("\n"), encoding="utf-8")
    for step in steps["edit"]:
        path = checkout / step["path"]
        text = path.read_text(encoding="utf-8")
        assert text.count(step["old"]) == 1, f"{path.name} does not hold once: {step['old']}"
        path.write_text(text.replace(step["old"], step["new"]), encoding="utf-8")
    subprocess.run(["git", "add", "-A"], check=True, cwd=checkout)
    for step in steps["run"]:
        run_pytest(checkout, *step["arguments"], regenerate=step["regenerate"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", CHECKED)
def test_a_recipe_names_every_file(recipe: str, tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    follow(recipe, tmp_path)
    subprocess.run([sys.executable, "-m", "ruff", "check", "-q", "."], check=True, cwd=tmp_path)
    checked = run_pytest(tmp_path, *ALWAYS, *CHECKED[recipe])
    assert checked.returncode == 0, checked.stdout[-4000:]
