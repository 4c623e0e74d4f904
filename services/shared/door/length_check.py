"""Heads of messages whose length two programs could read differently (request smuggling) are refused.

h11 takes Transfer-Encoding beside Content-Length, and joins equal Content-Length lines. A proxy in front that decides
otherwise would see another end of the request.
"""

import h11
from h11._receivebuffer import ReceiveBuffer


class LengthCheck(ReceiveBuffer):
    """h11's buffer, which gives out a head only if one line at most states the length of the body."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines of a whole head. Raises RemoteProtocolError."""
        lines = super().maybe_extract_lines()
        if lines is None:
            return None
        stated = 0
        for line in lines:
            # Most lines are ruled out by their first letter.
            if line[:1] in b"cCtT" and line:
                name = line[:18].lower()
                if name.startswith(b"content-length:"):
                    # A list of lengths is as ambiguous as several lines.
                    stated += 2 if b"," in line else 1
                elif name.startswith(b"transfer-encoding:"):
                    # HTTP/1.0 has none, so a program in between would look for the end elsewhere.
                    stated += 2 if lines[0].endswith(b"HTTP/1.0") else 1
        if stated > 1:
            raise h11.RemoteProtocolError("the length of the body is stated twice", error_status_hint=400)
        return lines
