"""Command of a process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict


class SpawnOptions(TypedDict, total=False):
    """Keyword arguments of subprocess.Popen that make the child run as another user."""

    user: int
    group: int
    extra_groups: Sequence[int]


@dataclass(frozen=True, slots=True)
class Command:
    """Command line with its whole environment, directory and user."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str = "/"
    options: SpawnOptions = field(default_factory=SpawnOptions)
