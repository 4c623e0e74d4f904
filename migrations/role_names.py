"""Names of the database roles: a prefix for each installation, `pulse_` unless PULSE_ROLE_PREFIX is set.

sql/ spells the default names, so that every file runs in psql as it stands. `rename` turns them into those of the
installation before a layer is fingerprinted, applied and recorded.
"""

import os
import re
from dataclasses import dataclass
from typing import Self

DEFAULT_PREFIX = "pulse_"
VARIABLE = "PULSE_ROLE_PREFIX"
# A role's name has 63 bytes at most; the longest suffix has 10.
_PREFIX = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,52}", re.ASCII)
SERVICES = ("ui", "evaluator", "dispatcher", "delivery", "ops")
CALLERS = (*SERVICES, "app", "auditor", "exporter", "operator")
# Channels of NOTIFY, which every database has for itself, have such names too.
_DEFAULT_NAME = re.compile(rf"(?<!notify\(')\bpulse_(owner|{'|'.join(CALLERS)})\b", re.ASCII)


class RolesRefused(Exception):
    """The roles of an installation cannot be made as they are asked for."""


class BadRolePrefix(RolesRefused):
    """PULSE_ROLE_PREFIX is not the beginning of a role's name."""

    def __init__(self, prefix: str) -> None:
        super().__init__(
            f"{VARIABLE} takes up to 53 lower-case letters, digits and underscores, no digit and no pg_ first:"
            f" {prefix[:80]!r}"
        )


@dataclass(frozen=True, slots=True)
class RoleNames:
    """The roles of one installation."""

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise BadRolePrefix(self.prefix)

    @classmethod
    def find(cls) -> Self:
        """Return the names that PULSE_ROLE_PREFIX asks for. Raises BadRolePrefix."""
        return cls(os.environ.get(VARIABLE) or DEFAULT_PREFIX)

    def __getitem__(self, suffix: str) -> str:
        return self.prefix + suffix

    @property
    def owner(self) -> str:
        """The role that owns every object and cannot log in."""
        return self["owner"]

    @property
    def callers(self) -> tuple[str, ...]:
        """The roles that log in."""
        return tuple(self[suffix] for suffix in CALLERS)

    @property
    def services(self) -> tuple[str, ...]:
        """The roles of the services, without the exporter's."""
        return tuple(self[suffix] for suffix in SERVICES)

    def rename(self, text: str) -> str:
        """Return text with this installation's names in place of the default ones."""
        return _DEFAULT_NAME.sub(lambda match: self[match[1]], text)
