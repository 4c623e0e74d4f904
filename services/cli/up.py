"""`pulse up`: the stack on one machine."""

import os
from typing import Annotated

import typer

from services.cli import database
from services.cli.app import new_app
from services.cli.console import open_console
from services.cli.home import Home
from services.local.stack.roster import DEFAULT_PORT_BASE, HIGHEST_PORT_BASE, MOST_UI_PROCESSES, Ports
from services.local.stack.screen import Screen
from services.local.stack.stack import Options, run_stack

app = new_app()


@app.command()
def up(
    *,
    port_base: Annotated[
        int, typer.Option(min=1, max=HIGHEST_PORT_BASE, help="The services listen on the ports after this one.")
    ] = DEFAULT_PORT_BASE,
    demo: Annotated[bool, typer.Option(help="Create a demo tenant and run a simulated fleet.")] = True,
    ui_processes: Annotated[
        int, typer.Option(min=1, max=MOST_UI_PROCESSES, help="Number of API processes, which share one port.")
    ] = 1,
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="Number of simulated devices.")] = 20,
    rate: Annotated[float, typer.Option(min=0, max=1_000_000, help="Readings per second of the whole fleet.")] = 20.0,
) -> None:
    """Start everything on this machine and run until Ctrl-C.

    Without PULSE_DATABASE_URL it runs an embedded Postgres, which is for trying Pulse and developing it, not for
    production. With PULSE_DATABASE_URL there is no demo.
    """
    ports = Ports(port_base, os.environ.get("PULSE_HOST") or "127.0.0.1", ui_processes)
    options = Options(ports, demo=demo and database.given_url() is None, devices=devices, rate=rate)
    run_stack(Home.find(), options, Screen(open_console()))
