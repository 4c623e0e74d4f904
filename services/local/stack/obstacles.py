"""Obstacles to a start of the stack: processes that an earlier one left running, and ports that are taken."""

import errno
import signal
import socket
from collections.abc import Mapping

import psutil

from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.cli.state_file import read_state
from services.local.process import pids

STOP_STEPS = ((signal.SIGTERM, 8.0), (signal.SIGKILL, 8.0))


def stop_leftovers(home: Home) -> None:
    """Stop the processes of the last stack, except Postgres. The caller holds the stack's lock.

    They end by themselves when their supervisor is killed; this waits for that.
    """
    last = read_state(home)
    left = [
        process.pid
        for process in (last.processes if last else ())
        # The pid may belong to another program by now.
        if process.pid is not None and process.module and process.module in pids.command_line(process.pid)
    ]
    if not pids.stop(left, STOP_STEPS):
        raise CommandFailed(f"processes {left} of an earlier start do not end")


def check_free(ports: Mapping[str, int], *, host: str) -> None:
    """Raise CommandFailed that names the first port that cannot be bound, and its holder if that can be seen."""
    for name, port in ports.items():
        fault = _bind_fault(host, port)
        if fault == errno.EADDRINUSE:
            raise CommandFailed(f"port {port} for {name} is taken{_holder(port)}; choose others with --port-base")
        if fault is not None:
            raise CommandFailed(f"port {port} for {name} cannot be used on {host}: {errno.errorcode[fault]}")


def _bind_fault(host: str, port: int) -> int | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: connections that linger from an earlier run are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EINVAL
    return None


def _holder(port: int) -> str:
    """Return the process that listens on the port, in words; only root sees those of other users."""
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    listening = (
        one.pid for one in sockets if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
    )
    pid = next(filter(None, listening), None)
    return f" by process {pid} ({' '.join(pids.command_line(pid))[:80]})" if pid else ""
