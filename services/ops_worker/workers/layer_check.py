"""The comparison of the SQL layer with its record, in a process of the migrations, which services may not import."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
LIMIT_SECONDS = 90.0


class LayerCheckFailed(Exception):
    """Raised if the comparison did not finish; the message says why."""


async def check_layer(url: str) -> list[str]:
    """Return each difference of a database's catalog from its recorded layer. Raises LayerCheckFailed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "migrations.layer_check"),
        cwd="/",
        # In the environment, because every user of the machine can see arguments.
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PULSE_LAYER_CHECK_URL": url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            out, error = await process.communicate()
    except TimeoutError:
        raise LayerCheckFailed(f"the SQL layer was not compared within {LIMIT_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode not in (0, 1):
        reason = error.decode(errors="replace").strip().splitlines()
        raise LayerCheckFailed(f"the SQL layer was not compared: {reason[-1] if reason else process.returncode}")
    return out.decode(errors="replace").splitlines()
