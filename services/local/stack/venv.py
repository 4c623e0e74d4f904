"""Creation of .venv from a lock, run by ./pulse with the system's Python and therefore without any package.

requirements.lock has the packages that Pulse needs, requirements-dev.lock also those of its tests.

A marker inside .venv exists during an installation. If an interruption left it there, .venv is created again. A .venv
that was created by hand is completed, not replaced. One process installs while others wait.
"""

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

STAMPS = {"requirements.lock": ".pulse-lock", "requirements-dev.lock": ".pulse-lock-dev"}
"""Copies of the locks that an environment was created from."""
MARKER = ".pulse-incomplete"


def ensure_venv(root: Path, name: str) -> None:
    """Bring root/.venv up to the lock of this name. Raises CalledProcessError when venv or pip fails."""
    (root / ".pulse").mkdir(exist_ok=True)
    with (root / ".pulse" / "venv.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("pulse: waiting for another pulse that installs the packages", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _install(root / ".venv", root / name)


def _install(venv: Path, lock: Path) -> None:
    wanted = lock.read_bytes()
    stamp, marker, python = venv / STAMPS[lock.name], venv / MARKER, venv / "bin" / "python"
    if _runs(python, "") and not marker.exists():
        if stamp.exists() and stamp.read_bytes() == wanted:
            return
    else:
        shutil.rmtree(venv, ignore_errors=True)
    print(f"pulse: installing {lock.name} into {venv}; this happens once, in about half a minute", file=sys.stderr)
    venv.mkdir(exist_ok=True)
    marker.touch()
    # An interrupted installation must not leave stamps that are no longer true.
    for name in STAMPS.values():
        (venv / name).unlink(missing_ok=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if not _runs(python, "import pip"):
        # Other tools create environments without pip.
        subprocess.run([str(python), "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--require-hashes"]
    # The newer pip first, so that it installs the rest.
    if installers := installers_of(wanted.decode()):
        tools = venv / ".pulse-tools"
        tools.write_text(installers, encoding="utf-8")
        subprocess.run([*pip, "-r", str(tools)], check=True)
    subprocess.run([*pip, "-r", str(lock)], check=True)
    # The development lock contains the other one.
    (venv / STAMPS["requirements.lock"]).write_bytes(lock.with_name("requirements.lock").read_bytes())
    stamp.write_bytes(wanted)
    marker.unlink()


def installers_of(lock: str) -> str:
    """Return the lock's requirements of pip and setuptools, with their hashes."""
    return "".join(re.findall(r"^(?:pip|setuptools)==.*\n(?:    --hash=.*\n)*", lock, re.MULTILINE))


def _runs(python: Path, code: str) -> bool:
    try:
        return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def main(root: Path, name: str) -> int:
    """Create the environment. On failure, print one line and return 1."""
    try:
        ensure_venv(root, name)
    except subprocess.CalledProcessError as error:
        # pip has printed the cause, perhaps far above its last line, so name the step.
        step = f"install the packages of {name}" if "install" in error.cmd else "create a virtual environment"
        print(f"pulse: cannot {step} in {root}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"pulse: cannot create {root / '.venv'}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pulse: interrupted; the next start installs the packages again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
