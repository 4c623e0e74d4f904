"""Makes .venv from a lock; run by ./pulse with the machine's own Python, so it imports nothing but that.

requirements.lock holds what Pulse needs to run, requirements-dev.lock also what its tests need.

A marker inside .venv says that an installation is under way. It outlives an interrupted one, which is then made anew;
a .venv that somebody made by hand is completed, not replaced. Only one process installs, the others wait for it.
"""

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

STAMPS = {"requirements.lock": ".pulse-lock", "requirements-dev.lock": ".pulse-lock-dev"}
"""Copies of the locks that an environment was made from."""
MARKER = ".pulse-incomplete"


def ensure_venv(root: Path, name: str) -> None:
    """Bring root/.venv up to the lock of this name. Raises CalledProcessError when venv or pip fails."""
    (root / ".pulse").mkdir(exist_ok=True)
    with (root / ".pulse" / "venv.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("pulse: another pulse installs the packages, waiting for it", file=sys.stderr)
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
    print(f"pulse: installing packages into {venv}, once, in about half a minute", file=sys.stderr)
    venv.mkdir(exist_ok=True)
    marker.touch()
    # What was there is not what its stamp says any more, should this be cut off.
    for name in STAMPS.values():
        (venv / name).unlink(missing_ok=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if not _runs(python, "import pip"):
        # Other tools make environments without it.
        subprocess.run([str(python), "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--require-hashes"]
    # The newer pip first: it replaces its own files, and installs the rest.
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
    """Make the environment; one line and status 1 when it cannot be made."""
    try:
        ensure_venv(root, name)
    except subprocess.CalledProcessError as error:
        # The program has said why; its last words may be far from the cause, so say what was being done.
        step = f"install the packages of {name}" if "install" in error.cmd else "make a virtual environment"
        print(f"pulse: cannot {step} in {root}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"pulse: cannot make {root / '.venv'}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pulse: interrupted; the next start installs again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
