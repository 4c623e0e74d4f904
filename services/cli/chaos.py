"""`pulse chaos`: the chaos runs, which only a checkout has, in tests/chaos."""

from importlib import import_module

import typer

from migrations.places import is_checkout
from services.cli.app import PASS_ON, new_app
from services.cli.errors import CommandFailed


def _refuse(_context: typer.Context) -> None:
    """Prove promises by breaking everything around them."""
    raise CommandFailed("an installed Pulse has no chaos runs: run this in a checkout")


if is_checkout():
    app: typer.Typer = import_module("tests.chaos.app").app
else:
    app = new_app()
    app.command(context_settings=PASS_ON)(_refuse)
