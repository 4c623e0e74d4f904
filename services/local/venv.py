"""Makes .venv from requirements.lock; run by ./pulse with the machine's own Python, so it imports nothing but that.

A marker inside .venv says that an installation is under way. It outlives an interrupted one, which is then made anew;
a .venv that somebody made by hand is completed, not replaced. Only one process installs, the others wait for it.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

STAMP = ".pulse-lock"
MARKER = ".pulse-incomplete"


def ensure_venv(root: Path) -> None:
    """Bring root/.venv up to root/requirements.lock. Raises CalledProcessError when venv or pip fails."""
    (root / ".pulse").mkdir(exist_ok=True)
    with (root / ".pulse" / "venv.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("pulse: another pulse installs the packages, waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _install(root / ".venv", root / "requirements.lock")


def _install(venv: Path, lock: Path) -> None:
    wanted = lock.read_bytes()
    stamp, marker, python = venv / STAMP, venv / MARKER, venv / "bin" / "python"
    if _runs(python, "") and not marker.exists():
        if stamp.exists() and stamp.read_bytes() == wanted:
            return
    else:
        shutil.rmtree(venv, ignore_errors=True)
    print(f"pulse: installing packages into {venv}, once, in about half a minute", file=sys.stderr)
    venv.mkdir(exist_ok=True)
    marker.touch()
    # What was there is not what its stamp says any more, should this be cut off.
    stamp.unlink(missing_ok=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if not _runs(python, "import pip"):
        # Other tools make environments without it.
        subprocess.run([str(python), "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
    stamp.write_bytes(wanted)
    marker.unlink()


def _runs(python: Path, code: str) -> bool:
    try:
        return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def main(root: Path) -> int:
    """Make the environment; one line and status 1 when it cannot be made."""
    try:
        ensure_venv(root)
    except subprocess.CalledProcessError as error:
        # The program has said why; its last words may be far from the cause, so say what was being done.
        step = "install the packages of requirements.lock" if "install" in error.cmd else "make a virtual environment"
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
    sys.exit(main(Path(sys.argv[1])))
