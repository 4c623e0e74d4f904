"""Runs `alembic upgrade head` as a process of its own and passes on what it says."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping

from services.local.errors import LocalError
from services.local.home import CHECKOUT


async def migrate(url: str, env: Mapping[str, str], *, say: Callable[[str], None], set_passwords: bool = False) -> None:
    """Bring roles, tables and SQL layer up to this checkout. Raises LocalError with Alembic's own last words."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "alembic", *(["-x", "set-passwords=yes"] if set_passwords else [])),
        *("upgrade", "head"),
        cwd=CHECKOUT,
        env={**env, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", "PULSE_MIGRATION_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    last: list[str] = []
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            # A failure may end with several lines: the SQL that an administrator runs.
            if line and last and last[0].startswith("FAILED"):
                last.append(line)
            elif line:
                last = [line]
                if not line.startswith("FAILED"):
                    say(line)
        status = await process.wait()
    except asyncio.CancelledError:
        # One transaction: what is interrupted did not happen.
        process.terminate()
        await process.wait()
        raise
    if status != 0:
        reason = "\n".join(last).removeprefix("FAILED: ") or f"exit {status}"
        raise LocalError(f"migration failed: {reason}")
