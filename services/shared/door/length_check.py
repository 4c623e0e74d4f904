"""Refusal of heads that state the length of the body ambiguously (request smuggling).

h11 accepts Transfer-Encoding beside Content-Length, and joins equal Content-Length lines. A proxy in front that decides
differently would see a different end of the request.
"""

import h11
from h11._receivebuffer import ReceiveBuffer


class LengthCheck(ReceiveBuffer):
    """h11's buffer, which returns a head only if at most one line states the length of the body."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines of a whole head, or None. Raises RemoteProtocolError."""
        lines = super().maybe_extract_lines()
        if lines is None:
            return None
        stated = 0
        for line in lines:
            # The first letter excludes most lines.
            if line[:1] in b"cCtT" and line:
                name = line[:18].lower()
                if name.startswith(b"content-length:"):
                    # A list of lengths is as ambiguous as several lines.
                    stated += 2 if b"," in line else 1
                elif name.startswith(b"transfer-encoding:"):
                    # HTTP/1.0 has no such header, so a program in between would expect the end elsewhere.
                    stated += 2 if lines[0].endswith(b"HTTP/1.0") else 1
        if stated > 1:
            raise h11.RemoteProtocolError("the length of the body is stated twice", error_status_hint=400)
        return lines
