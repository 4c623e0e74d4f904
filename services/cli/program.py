"""The `pulse` program: its commands, each loaded when it is called, and one line on standard error for a failure."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from services.cli.app import new_app
from services.cli.errors import CommandFailed
from services.shared.visible_text import terminal_text

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("up", "Start everything on this machine and run until Ctrl-C."),
    "status": ("status", "Show the processes of the running stack."),
    "psql": ("psql", "Open psql as an operator, or as another role of Pulse."),
    "trace": ("trace", "Show the steps of one trace, from request to webhook."),
    "migrate": ("migrate", "Bring the database up to this checkout."),
    "test": ("checks", "Run ruff, mypy, import-linter and pytest."),
    "bench": ("bench", "Measure Pulse beside a reference in the same run."),
    "tenant": ("tenant", "Create tenants, list them and set their limits."),
    "token": ("token", "Print a bearer token for the local stack, or revoke user tokens."),
    "key": ("key", "Create, list and revoke API keys of machines."),
    "audit": ("audit.commands", "Read, verify and export the audit trail."),
    "metrics": ("metrics", "List the metrics that are views, and find their faults."),
    "secrets": ("secrets", "Seal the secrets of channels with a key outside the database."),
    "chaos": ("chaos", "Prove promises by breaking everything around them."),
}
"""The module below services.cli and the short help of each command."""


class _Commands(TyperGroup):
    """A group that imports a command's module when the command is called, so that help and errors stay quick."""

    def list_commands(self, _context: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"services.cli.{COMMANDS[name][0]}").app)
        command.name = name
        return command

    def format_commands(self, _context: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = new_app("Alerting for fleets of IoT devices.")


@app.callback(cls=_Commands)
def _pulse() -> None:
    """Define no options."""


def main() -> None:
    """Run a command; a failure is one line, with a traceback only with PULSE_DEBUG=1."""
    try:
        app(prog_name="pulse")
    except CommandFailed as error:
        _fail(str(error), status=error.status)
    except BrokenPipeError:
        # The reader of our output has closed it; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("PULSE_DEBUG"):
            raise
        _fail(f"internal error: {type(error).__name__}: {error} (PULSE_DEBUG=1 shows the traceback)")


def _fail(message: str, *, status: int = 1) -> None:
    print(terminal_text(f"pulse: {' '.join(message.split())}"), file=sys.stderr)
    sys.exit(status)
