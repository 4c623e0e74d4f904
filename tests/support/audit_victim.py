"""Write audit events until killed: python -m tests.support.audit_victim; settings from the environment.

Each line of its input is `record N`, `log N`, `telemetry N` or `refuse N`; each is answered by `done` when it is done.
`stream N` records as N clients at once without an end, and says `asked ID` and `kept ID` of each event.
"""

import asyncio
import os
import random
import secrets
import sys

from prometheus_client import CollectorRegistry

from services.shared import db
from services.shared.audit import AuditBlocked, AuditLogger, open_audit_logger
from services.shared.settings import UiSettings


async def obey(logger: AuditLogger, command: str, count: int) -> None:
    """Execute one line."""
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
                logger.log(logger.auth.failure(reason="expired", **facts))  # type: ignore[arg-type]


async def _stream(logger: AuditLogger) -> None:
    while True:
        event = logger.auth.success(tenant_id="acme", actor=db.Actor("user", secrets.token_hex(8)))
        if random.random() < 0.3:
            event = logger.auth.failure(reason="expired", tenant_id="acme", actor=db.Actor("user", str(event.actor_id)))
        _answer(f"asked {event.actor_id}")
        try:
            await logger.record(event)
        except AuditBlocked:
            continue
        _answer(f"kept {event.actor_id}")


def _answer(text: str = "done") -> None:
    # A single write, so that a reader never sees part of a line.
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


async def main() -> None:
    """Read commands and execute them."""
    loop = asyncio.get_running_loop()
    async with open_audit_logger(UiSettings.load(), registry=CollectorRegistry()) as logger:
        _answer()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, count = line.split()
            if command == "stream":
                await asyncio.gather(*(_stream(logger) for _ in range(int(count))))
            await obey(logger, command, int(count))
            _answer()


if __name__ == "__main__":
    asyncio.run(main())
