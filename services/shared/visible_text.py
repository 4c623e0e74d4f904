"""Cleaning of text from outside for messages, terminals and logs, and a check of names."""

import unicodedata

# Joiners are part of words and emoji. Every other format character may hide text or change its direction.
_JOINERS = "\u200c\u200d"
# Unicode's Default_Ignorable_Code_Point, and blanks that count as letters or symbols. They are not drawn. The standard
# library has only the category, and most of these are not in Cf.
_INVISIBLE = (
    *(range(0x034F, 0x0350), range(0x115F, 0x1161), range(0x17B4, 0x17B6), range(0x180B, 0x1810)),
    *(range(0x2800, 0x2801), range(0x3164, 0x3165), range(0xFE00, 0xFE0E), range(0xFFA0, 0xFFA1)),
    *(range(0xFFF0, 0xFFF9), range(0xE0000, 0xE1000)),
)
# Select text or emoji presentation of the preceding character.
_PRESENTATION = "\ufe0e\ufe0f"
_REFUSED_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "an invisible character",
    "Cs": "half of a surrogate pair",
    "Co": "a private-use character",
    "Cn": "no assigned character",
    "Zl": "a line break",
    "Zp": "a line break",
}


def printable(text: str) -> str:
    """Return the text in one line, without control characters and marks that change its direction."""
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
    """Return the text for one line of a terminal. Characters that control it or change direction become U+FFFD."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in said)


def escape_json(document: bytes) -> bytes:
    """Return the same JSON without bytes that control a terminal.

    JSON escapes only C0 controls. It may contain DEL, C1 controls, bidi marks and line separators.
    """
    if document.isascii() and b"\x7f" not in document:
        return document
    text = document.decode()
    # Line feeds occur only between members. In strings they are escaped already.
    return "".join(letter if letter.isprintable() or letter == "\n" else _escape(letter) for letter in text).encode()


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def visible_name(text: str) -> str:
    """Return the name in Unicode's form NFC. Raises ValueError that names the first invisible character."""
    shown = False
    for character in text:
        fault = _fault(character)
        if fault is None and character in _PRESENTATION and not shown:
            fault = "an invisible character"
        if fault is not None:
            raise ValueError(f"must not contain {_describe(character)}, {fault}")
        shown = shown or unicodedata.category(character)[0] in "LNPS"
    if text and not shown:
        raise ValueError("must contain a visible character")
    return unicodedata.normalize("NFC", text)


def _fault(character: str) -> str | None:
    if character.isascii():
        return None if character.isprintable() else _REFUSED_CATEGORIES["Cc"]
    if any(ord(character) in block for block in _INVISIBLE):
        return "an invisible character"
    return _REFUSED_CATEGORIES.get(unicodedata.category(character))


def _describe(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
