"""Limits on the connections, descriptors and time that clients of a listening socket can hold.

All listening sockets of a process share one Door. A connection on which the process waits for its client (for a TLS
handshake, a head, a body, or the client's reading of the answer) has a deadline. It is closed earlier when a new
connection needs its place; the connection that has waited longest is closed first. Connections whose request is being
answered stay open.
"""

from services.shared.door.acceptor import Acceptor
from services.shared.door.doorman import Door
from services.shared.door.framing import ManySmallChunks
from services.shared.door.limits import Limits
from services.shared.door.protocol import DoorProtocol

__all__ = ["Acceptor", "Door", "DoorProtocol", "Limits", "ManySmallChunks"]
