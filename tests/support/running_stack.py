"""A whole `pulse up` in its own processes, on free ports, with its own home."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from services.cli.home import CHECKOUT
from services.local.stack.roster import SERVICES
from tests.support.wait import until_now

READY_SECONDS = 90.0


def free_port_base() -> int:
    """Return a port followed by twelve free ports, below the range that the kernel gives to clients."""
    for base in range(20_000 + os.getpid() % 500 * 20, 32_000, 20):
        with ExitStack() as held:
            try:
                for port in range(base + 1, base + 13):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


@dataclass
class RunningStack:
    """The stack and its output; the server's user can enter `home`."""

    home: Path
    port_base: int
    arguments: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    supervisor: "subprocess.Popen[str] | None" = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment for every command about this stack."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
        return {**inherited, "PYTHONPATH": str(CHECKOUT), "PULSE_HOME": str(self.home), **self.settings}

    @property
    def output(self) -> str:
        """Output of `up` so far."""
        return (self.home / "up.txt").read_text()

    def start(self) -> None:
        """Run `up` and return at once."""
        self.home.mkdir(exist_ok=True)
        with (self.home / "up.txt").open("w") as output:
            self.supervisor = subprocess.Popen(
                self.command("up", "--port-base", str(self.port_base), *self.arguments),
                cwd=CHECKOUT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def command(self, *arguments: str) -> list[str]:
        """Command line of `pulse`."""
        return [sys.executable, "-P", "-m", "services.cli", *arguments]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another command of `pulse` to its end."""
        return subprocess.run(
            self.command(*arguments),
            check=False,
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def processes(self) -> dict[str, dict[str, Any]]:
        """Return the processes in `stack.json` by name; empty until the running `up` has written the file."""
        try:
            state = orjson.loads((self.home / "stack.json").read_bytes())
        except FileNotFoundError:
            return {}
        if self.supervisor is None or state["pid"] != self.supervisor.pid:
            return {}
        return {one["name"]: one for one in state["processes"]}

    def until_ready(self) -> dict[str, dict[str, Any]]:
        """Wait until all six services, and further processes of theirs, are ready."""

        def ready() -> dict[str, dict[str, Any]]:
            assert self.supervisor is not None
            assert self.supervisor.poll() is None, self.output
            now = self.processes()
            return now if all(now.get(name, {}).get("ready") for name in {*SERVICES, *now}) else {}

        return until_now(ready, seconds=READY_SECONDS)

    def pids(self) -> list[int]:
        """Return the pids of all processes that `up` supervises."""
        return [one["pid"] for one in self.processes().values() if one["pid"]]

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 10.0) -> int:
        """Signal `up` and return its exit status."""
        assert self.supervisor is not None
        self.supervisor.send_signal(number)
        return self.supervisor.wait(seconds)

    def kill(self) -> None:
        """Kill the remaining processes at the end of a test that may have failed."""
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.supervisor.terminate()
            try:
                self.supervisor.wait(20)
            except subprocess.TimeoutExpired:
                self.supervisor.kill()
                self.supervisor.wait()
