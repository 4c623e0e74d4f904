"""The types of the API's members, with the same bounds that the tables have."""

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from services.ui_iot.ingest.readings import RFC3339

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


GREATEST_ID = 2**63 - 1
_DIGITS = re.compile(r"0|[1-9][0-9]{0,18}")


def _check_name(value: Any) -> Any:
    # Before pydantic's own check of text, which does not say which character is wrong.
    return visible_name(value.strip()) if isinstance(value, str) else value


def _check_tags(tags: list[str]) -> list[str]:
    # Upper and lower case are different tags, as they are to rules and routes.
    twice = next((tag for number, tag in enumerate(tags) if tag in tags[:number]), None)
    if twice is not None:
        raise ValueError(f"must name each tag once, and names {twice} twice")
    return tags


Name = Annotated[str, BeforeValidator(_check_name), StringConstraints(min_length=1, max_length=200)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
Tags = Annotated[list[Tag], Field(max_length=32), AfterValidator(_check_tags)]
DeviceId = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
Metric = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
TraceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Severity = Literal["info", "warning", "error", "critical"]
Operator = Literal[">", ">=", "<", "<=", "=", "!="]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Id = Annotated[int, Field(strict=True, ge=1, le=GREATEST_ID)]


def _read_digits(value: Any) -> Any:
    # int() takes 2_7, +1, 01, blanks and the digits of every script, which other programs read as something else.
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("must be a whole number in digits, without sign, leading zero, separator or blank")
    return value


def _read_flag(value: Any) -> Any:
    # bool() of a query takes 1, on, yes and t too, each of which another program reads as something else.
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


def _require_text(value: Any) -> Any:
    # A number would be taken as seconds since 1970, or as milliseconds when it is large.
    if not isinstance(value, datetime | None) and not (isinstance(value, str) and RFC3339.fullmatch(value)):
        raise ValueError("must be RFC 3339 text with a zone, such as 2026-01-05T12:00:00Z")
    return value


# In a path and a query every number is text. Bounds stand before this validator: behind it, they are not documented.
DIGITS = BeforeValidator(_read_digits)
QueryFlag = Annotated[bool, BeforeValidator(_read_flag)]
QueryId = Annotated[int, Field(ge=1, le=GREATEST_ID), DIGITS]
PathId = Annotated[int, Path(ge=1, le=GREATEST_ID, description="Its number, as the list shows it."), DIGITS]
Moment = Annotated[AwareDatetime, BeforeValidator(_require_text)]
PathDeviceId = Annotated[str, Path(max_length=128, description="The device's own name, as its readings carry it.")]


def unset() -> Any:
    """A member that a change may leave out; it has no default that could be mistaken for a value."""
    return Field(default_factory=lambda: None)


def example(**values: Any) -> ConfigDict:
    """Configuration of what a caller sends: an example, and nothing that is not listed."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


def shown(**values: Any) -> ConfigDict:
    """Configuration of what a caller gets: an example."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def changes(patch: BaseModel) -> dict[str, Any]:
    """The members a change names, as JSON values."""
    return patch.model_dump(mode="json", exclude_unset=True)
