"""Whether the stack's ports are free, and who has them when they are not."""

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from services.cli.errors import LocalError
from services.local.process import pids

_LISTEN = "0A"


def check_free(ports: Mapping[str, int], *, host: str) -> None:
    """Raise LocalError that names the first port that cannot be bound, and its holder if that can be seen."""
    for name, port in ports.items():
        fault = bind_fault(host, port)
        if fault == errno.EADDRINUSE:
            pid = next(_listeners(port), None)
            holder = f" by process {pid} ({' '.join(pids.command_line(pid))[:80]})" if pid else ""
            raise LocalError(f"port {port} for {name} is taken{holder}; choose others with --port-base")
        if fault is not None:
            raise LocalError(f"port {port} for {name} cannot be used on {host}: {errno.errorcode[fault]}")


def bind_fault(host: str, port: int) -> int | None:
    """The errno of an attempt to listen, None when it works."""
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


def _listeners(port: int) -> Iterator[int]:
    """Pids that listen on the port; those of other users only root sees."""
    inodes = set(_listening_inodes(port))
    for fd in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        try:
            if str(fd.readlink()) in inodes:
                yield int(fd.parts[2])
        except OSError:
            continue


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"


def free_ports(names: Sequence[str], *, host: str = "127.0.0.1") -> dict[str, int]:
    """A port for each name that nobody listened on a moment ago."""
    with ExitStack() as held:
        probes = {name: held.enter_context(socket.create_server((host, 0))) for name in names}
        return {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
