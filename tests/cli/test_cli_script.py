"""The script at the root: makes .venv when it must, and runs from anywhere."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ECHO = "import os, sys\nprint(sys.argv[1:], os.getcwd(), sys.prefix)\n"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the real script, no packages to install, and a command line that echoes."""
    made = tmp_path_factory.mktemp("a check out") / "it's here"
    (made / "services" / "local" / "stack").mkdir(parents=True)
    shutil.copy(ROOT / "pulse", made / "pulse")
    shutil.copy(ROOT / "services" / "local" / "stack" / "venv.py", made / "services" / "local" / "stack" / "venv.py")
    (made / "services" / "__init__.py").touch()
    (made / "services" / "cli.py").write_text(ECHO)
    (made / "requirements.lock").touch()
    (made / "requirements-dev.lock").write_text("# and tools\n")
    return made


@pytest.fixture
def bare(checkout: Path) -> Iterator[Path]:
    """The checkout without .venv."""
    yield checkout
    shutil.rmtree(checkout / ".venv", ignore_errors=True)


def run(script: Path, *arguments: str, cwd: Path | str = "/", **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(script), *arguments],
        check=False,
        cwd=cwd,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=100,
    )


def fake_python(directory: Path, body: str) -> str:
    """Return a python3 of another kind."""
    fake = directory / "python3"
    fake.write_text(f"#!/bin/sh\n{body}\n")
    fake.chmod(0o755)
    return str(fake)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_run_installs_and_later_ones_do_not(bare: Path, tmp_path: Path) -> None:
    """From another directory, through symbolic links, with a blank and a quote in the path; of two, one installs."""
    link = tmp_path / "link"
    link.symlink_to(bare / "pulse")
    relative = tmp_path / "relative"
    relative.symlink_to("link")
    with ThreadPoolExecutor(2) as pool:
        firsts = list(pool.map(lambda _: run(relative, "two words", "--flag", cwd=tmp_path), range(2)))
    for first in firsts:
        assert first.returncode == 0, first.stderr
        assert first.stdout == f"{['two words', '--flag']} {tmp_path} {bare / '.venv'}\n"
    assert "".join(first.stderr for first in firsts).count("installing requirements") == 1
    second = run(relative)
    assert (second.returncode, second.stderr) == (0, "")

    # Tests and benchmarks have more packages, which contain those of every other command.
    for command in ("test", "bench"):
        done = run(relative, command, "-x")
        assert (done.returncode, "installing requirements" in done.stderr) == (0, command == "test")
    assert (bare / ".venv" / ".pulse-lock-dev").read_text() == "# and tools\n"
    assert run(relative).stderr == ""

    # A directory of the same name where the user stands is not ours.
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "cli.py").write_text("print('shadow')")
    assert "shadow" not in run(bare / "pulse", cwd=tmp_path).stdout

    # A changed lock installs again, into the environment that is there, also when another tool made it without pip.
    stamp = bare / ".venv" / ".pulse-lock"
    stamp.write_text("another lock")
    for pip in (bare / ".venv" / "lib").glob("python3*/site-packages/pip*"):
        shutil.rmtree(pip)
    (bare / ".venv" / "kept").touch()
    assert "installing requirements" in run(relative).stderr
    assert stamp.read_bytes() == b""
    assert (bare / ".venv" / "kept").exists()

    # One that cannot be installed is one clear line at the end, and the half-made environment is known as such.
    lock = bare / "requirements.lock"
    lock.write_text("pulse-no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    failed = run(bare / "pulse", PIP_NO_INDEX="1")
    lock.write_text("")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == f"pulse: cannot install the packages of requirements.lock in {bare}"
    assert "Traceback" not in failed.stderr
    assert (bare / ".venv" / ".pulse-incomplete").exists()

    # An installation that was interrupted is made anew.
    assert run(relative).returncode == 0
    assert not (bare / ".venv" / "kept").exists()
    assert not (bare / ".venv" / ".pulse-incomplete").exists()


def test_no_python_is_one_line(bare: Path) -> None:
    """It says which version is needed."""
    done = run(bare / "pulse", PULSE_PYTHON="/no/such/python3")
    assert done.returncode == 1
    assert done.stderr == "pulse: /no/such/python3 is not installed: install Python 3.11 or newer\n"


def test_an_old_python_is_one_line(bare: Path, tmp_path: Path) -> None:
    """It says which one was found."""
    old = fake_python(tmp_path, '[ "$1" = -V ] && echo Python 3.9.2 && exit 0; exit 1')
    done = run(bare / "pulse", PULSE_PYTHON=old)
    assert done.returncode == 1
    assert done.stderr == f"pulse: {old} is Python 3.9.2: set PULSE_PYTHON to Python 3.11 or newer\n"


def test_a_python_without_venv_is_one_line(bare: Path, tmp_path: Path) -> None:
    """As Debian's is without python3-venv."""
    lame = fake_python(tmp_path, 'case "$2" in *venv*) echo ModuleNotFoundError >&2; exit 1 ;; esac')
    done = run(bare / "pulse", PULSE_PYTHON=lame)
    assert done.returncode == 1
    assert done.stderr == f"pulse: {lame} has no venv module: install it (on Debian: apt install python3-venv)\n"


def test_the_script_is_plain_sh(bare: Path, require: Callable[[str], str]) -> None:
    """A stricter shell finds no fault."""
    done = subprocess.run([require("dash"), "-n", bare / "pulse"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
