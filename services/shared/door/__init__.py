"""Bounds on what the clients of a listening socket can hold: connections, descriptors and time.

Each listening socket of a process accepts through one Door. A connection on which the process waits for its client (a
TLS handshake, a head, a body, an answer that is not read) has a deadline. It is closed earlier when a new connection
needs its place: the one that has waited longest goes first. Connections whose request is being answered stay.
"""

from services.shared.door.acceptor import Acceptor
from services.shared.door.doorman import Door
from services.shared.door.framing import ManySmallChunks
from services.shared.door.limits import Limits
from services.shared.door.protocol import DoorProtocol

__all__ = ["Acceptor", "Door", "DoorProtocol", "Limits", "ManySmallChunks"]
