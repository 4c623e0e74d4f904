"""Exports of the audit trail, and the independent program that checks them."""

import asyncio
import importlib.util
import io
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from types import ModuleType

from services.cli.audit.evidence import Question
from services.cli.audit.export import write_export
from tests.support.migrator import ROOT
from tests.support.sealed_log import SealedLog


def load() -> ModuleType:
    """Import docs/verify_export.py as a module."""
    spec = importlib.util.spec_from_file_location("verify_export", ROOT / "docs" / "verify_export.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERIFIER = load()


ALL = Question(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


async def export(log: SealedLog, question: Question = ALL) -> list[bytes]:
    """Return the lines of an export."""
    file = io.BytesIO()
    await write_export(log.reader, question, file)
    return file.getvalue().splitlines(keepends=True)


async def check(log: SealedLog, lines: Sequence[bytes], *options: str, key: str | None = None) -> tuple[int, str]:
    """Return exit status and output of the program, run in an empty directory outside the checkout."""
    program = str(ROOT / "docs" / "verify_export.py")
    keys = key or str(log.sealer.keys.public_path)
    empty = log.home / "empty"
    empty.mkdir(exist_ok=True)

    def run() -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-I", program, "--key", keys, *options, "-"]
        return subprocess.run(command, input=b"".join(lines), capture_output=True, check=False, cwd=empty, timeout=60)

    done = await asyncio.to_thread(run)
    assert b"Traceback" not in done.stderr
    return done.returncode, (done.stdout + done.stderr).decode()
