"""A process that writes audit events until it is killed: python -m tests.audit_victim; settings from the environment.

Each line of its input is `record N`, `log N`, `telemetry N` or `refuse N`; each is answered by `done` when it is done.
"""

import asyncio
import sys

from prometheus_client import CollectorRegistry

from services.shared import db
from services.shared.audit import AuditLogger, open_audit_logger
from services.shared.settings import UiIot


async def obey(logger: AuditLogger, command: str, count: int) -> None:
    """Do one line."""
    for number in range(count):
        facts = {"tenant_id": "acme", "actor": db.Actor("user", f"user-{number}"), "ip_address": "10.1.2.3"}
        match command:
            case "record":
                await logger.record(logger.auth.success(**facts))  # type: ignore[arg-type]  # facts of a test
            case "log":
                logger.log(logger.auth.success(**facts))  # type: ignore[arg-type]
            case "telemetry":
                logger.device_rejected(reasons={"too_old": 1}, **facts)  # type: ignore[arg-type]
            case "refuse":
                logger.auth_failure(reason="expired", **facts)  # type: ignore[arg-type]


def _answer() -> None:
    sys.stdout.write("done\n")
    sys.stdout.flush()


async def main() -> None:
    """Read and obey."""
    loop = asyncio.get_running_loop()
    async with open_audit_logger(UiIot.load(), registry=CollectorRegistry()) as logger:
        _answer()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, count = line.split()
            await obey(logger, command, int(count))
            _answer()


if __name__ == "__main__":
    asyncio.run(main())
