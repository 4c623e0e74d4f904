"""Names of the database roles: a prefix for each installation, `pulse_` unless PULSE_ROLE_PREFIX is set.

sql/ has the default names, so that every file runs in psql unchanged. `rename` replaces them by the installation's
names before a layer is fingerprinted, applied and recorded.
"""

import os
import re
from dataclasses import dataclass
from typing import Self

DEFAULT_PREFIX = "pulse_"
VARIABLE = "PULSE_ROLE_PREFIX"
# A role's name has at most 63 bytes, the longest suffix 10.
_PREFIX = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,52}", re.ASCII)
SERVICES = ("ui", "evaluator", "dispatcher", "delivery", "ops")
CALLERS = (*SERVICES, "app", "auditor", "exporter", "operator")
# Channels of NOTIFY have similar names, but are separate in each database and keep them.
_DEFAULT_NAME = re.compile(rf"(?<!notify\(')\bpulse_(owner|{'|'.join(CALLERS)})\b", re.ASCII)


class RolesRefused(Exception):
    """Raised if the roles of an installation cannot be made as requested."""


class BadRolePrefix(RolesRefused):
    """PULSE_ROLE_PREFIX is not the beginning of a role's name."""

    def __init__(self, prefix: str) -> None:
        super().__init__(
            f"{VARIABLE} takes up to 53 lower-case letters, digits and underscores, no digit and no pg_ first:"
            f" {prefix[:80]!r}"
        )


@dataclass(frozen=True, slots=True)
class RoleNames:
    """The role names of an installation."""

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise BadRolePrefix(self.prefix)

    @classmethod
    def find(cls) -> Self:
        """Return the names for PULSE_ROLE_PREFIX. Raises BadRolePrefix."""
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
        """The roles of the services except the exporter."""
        return tuple(self[suffix] for suffix in SERVICES)

    def rename(self, text: str) -> str:
        """Replace the default names in a text by this installation's names."""
        return _DEFAULT_NAME.sub(lambda match: self[match[1]], text)
