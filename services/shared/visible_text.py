"""Text from outside, made harmless for messages, terminals and log files."""

import unicodedata

# Joiners are part of words and emoji; every other format character may hide or turn text.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Return the text in one line, without control characters and without marks that change its direction."""
    if text.isascii() and text.isprintable():
        return text.strip()
    kept = (
        ""
        if unicodedata.category(character) in ("Cf", "Cs") and character not in _JOINERS
        else " "
        if unicodedata.category(character) in ("Cc", "Zl", "Zp")
        else character
        for character in text
    )
    return "".join(kept).strip()


def terminal_text(text: object) -> str:
    """Return the text for one line of a terminal: whatever could steer it or turn its text becomes U+FFFD."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in said)


def escape_json(document: bytes) -> bytes:
    """Return the same JSON, written so that its bytes steer no terminal.

    JSON escapes C0 controls only: DEL, C1 controls, bidi marks and line separators stand in it as they are.
    """
    if document.isascii() and b"\x7f" not in document:
        return document
    text = document.decode()
    # A line feed stands between members only: within a text it is escaped already.
    return "".join(letter if letter.isprintable() or letter == "\n" else _escape(letter) for letter in text).encode()


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
