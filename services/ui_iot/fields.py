"""The types of the API's members, with the same bounds that the tables have."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

GREATEST_ID = 2**63 - 1
# What would tear a line of a log or of a message in two.
_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=_ONE_LINE)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
DeviceId = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
Metric = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
TraceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Severity = Literal["info", "warning", "error", "critical"]
Operator = Literal[">", ">=", "<", "<=", "=", "!="]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Id = Annotated[int, Field(strict=True, ge=1, le=GREATEST_ID)]

# In a query every number is text, so these two take text.
QueryId = Annotated[int, Field(ge=1, le=GREATEST_ID)]
PathId = Annotated[int, Path(ge=1, le=GREATEST_ID, description="Its number, as the list shows it.")]
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
