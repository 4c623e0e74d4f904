"""Types of the API's members, with the bounds of the tables."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from services.shared.visible_text import visible_name

GREATEST_ID = 2**63 - 1
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DIGITS = re.compile(r"0|[1-9][0-9]{0,18}")


def _check_name(value: Any) -> Any:
    # Before pydantic's own check of text, which does not name the wrong character.
    return visible_name(value.strip()) if isinstance(value, str) else value


def _check_tags(tags: list[str]) -> list[str]:
    # Tags are case-sensitive, as in rules and routes.
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
    # int() also accepts 2_7, +1, 01, blanks and digits of all scripts, which other programs read differently.
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("must be a whole number in digits, without sign, leading zero, separator or blank")
    return value


def _read_flag(value: Any) -> Any:
    # Pydantic also accepts 1, on, yes and t, which other programs read differently.
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


def _require_text(value: Any) -> Any:
    # Pydantic would read a number as seconds since 1970, or as milliseconds if it is large.
    if not isinstance(value, datetime | None) and not (isinstance(value, str) and RFC3339.fullmatch(value)):
        raise ValueError("must be RFC 3339 text with a zone, such as 2026-01-05T12:00:00Z")
    return value


# In paths and queries a number is text. Bounds must precede this validator to appear in the OpenAPI document.
DIGITS = BeforeValidator(_read_digits)
QueryFlag = Annotated[bool, BeforeValidator(_read_flag)]
QueryId = Annotated[int, Field(ge=1, le=GREATEST_ID), DIGITS]
PathId = Annotated[int, Field(ge=1, le=GREATEST_ID, description="Its number, as the list shows it."), DIGITS]
Moment = Annotated[AwareDatetime, BeforeValidator(_require_text)]
PathDeviceId = Annotated[str, Field(max_length=128, description="The id that the device uses in its readings.")]


def unset() -> Any:
    """Return the field of a member that a change may leave out. Its default cannot be mistaken for a value."""
    return Field(default_factory=lambda: None)


def example(**values: Any) -> ConfigDict:
    """Return the configuration of a request model: an example, and a refusal of unknown members."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]}, use_attribute_docstrings=True)


def shown(**values: Any) -> ConfigDict:
    """Return the configuration of a response model: an example."""
    return ConfigDict(json_schema_extra={"examples": [values]}, use_attribute_docstrings=True)


def changes(patch: BaseModel) -> dict[str, Any]:
    """Return the members that a change names, as JSON values."""
    return patch.model_dump(mode="json", exclude_unset=True)
