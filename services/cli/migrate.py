"""Runs `alembic upgrade head` as a process of its own and passes on what it says."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping

from services.cli.errors import BadSettingError, LocalError
from services.cli.home import CHECKOUT


async def migrate(url: str, env: Mapping[str, str], *, say: Callable[[str], None], set_passwords: bool = False) -> None:
    """Bring roles, tables and SQL layer up to this checkout.

    Raises LocalError with Alembic's last lines, BadSettingError when the URL cannot be used.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "alembic", "-c", str(CHECKOUT / "migrations" / "alembic.ini")),
        *(["-x", "set-passwords=yes"] if set_passwords else []),
        *("upgrade", "head"),
        cwd=CHECKOUT,
        env={**env, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", "PULSE_MIGRATION_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    last, failure = "", list[str]()
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            if failure or line.startswith("FAILED"):
                # Statements for an administrator follow the reason.
                failure.append(line)
            elif line:
                last = line
                say(line)
        status = await process.wait()
    except asyncio.CancelledError:
        # One transaction: what is interrupted did not happen.
        process.terminate()
        await process.wait()
        raise
    if status != 0:
        reason = "\n".join(failure).removeprefix("FAILED: ").rstrip() or last
        if status == BadSettingError.status and reason:
            raise BadSettingError(reason)
        raise LocalError(f"migration failed: {reason or f'exit {status}'}")
