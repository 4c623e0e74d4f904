"""Limits on the shape of a JSON text, checked in its bytes before it is parsed.

The objects of a text like `[],[],[],…` take twenty times its bytes and block the event loop for seconds.
"""

from itertools import accumulate

from services.ui_iot.http.problems import TooLarge, Unprocessable

MOST_LEVELS = 32
PIECE_BYTES = 64 * 1024
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEPS)


class JsonShape:
    """Counts the values and levels of a text that arrives in pieces. The parser refuses a text that is not JSON.

    setting: name of the limit on values, for the error.
    """

    def __init__(self, *, most_values: int, setting: str | None = None) -> None:
        self._most_values = most_values
        self._setting = "" if setting is None else f" ({setting})"
        self._values = 0
        self._in_string = False
        self._rest = b""
        self._level = 0

    def feed(self, piece: bytes) -> None:
        """Count a piece. Raises TooLarge for too many values and Unprocessable for too many levels."""
        outside = self._outside_of_strings(piece)
        self._values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        if self._values > self._most_values:
            raise TooLarge(f"The body may hold {self._most_values} values{self._setting}.")
        steps = map(_STEPS.__getitem__, outside.translate(None, _NO_BRACKETS))
        levels = list(accumulate(steps, initial=self._level))
        if max(levels) > MOST_LEVELS:
            raise Unprocessable(f"Arrays and objects may be nested {MOST_LEVELS} deep.")
        self._level = levels[-1]

    def _outside_of_strings(self, piece: bytes) -> bytes:
        """Return the piece without the contents of strings."""
        if self._rest:
            piece = self._rest + piece
            self._rest = b""
        if b"\\" in piece:
            # Backslashes pair from the start of a run, so the last one of an odd run escapes the next byte.
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                piece, self._rest = piece[:-1], b"\\"
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        outside = b"".join(parts[self._in_string :: 2])
        self._in_string ^= len(parts) % 2 == 0
        return outside
