"""Validation of names: every character visible, in one spelling."""

import unicodedata

# Unicode's Default_Ignorable_Code_Point and the blanks that count as letters or symbols: nothing is drawn for them. The
# standard library knows the category only, and most of these are not in Cf.
_INVISIBLE = (
    *(range(0x034F, 0x0350), range(0x115F, 0x1161), range(0x17B4, 0x17B6), range(0x180B, 0x1810)),
    *(range(0x2800, 0x2801), range(0x3164, 0x3165), range(0xFE00, 0xFE0E), range(0xFFA0, 0xFFA1)),
    *(range(0xFFF0, 0xFFF9), range(0xE0000, 0xE1000)),
)
# Text or emoji presentation of the character before.
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


def visible_name(text: str) -> str:
    """Return the name in Unicode's form NFC; raise ValueError naming the first character that cannot be seen."""
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
