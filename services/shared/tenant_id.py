"""The form of tenant ids. The check of table `tenants` is the same pattern in SQL."""

import re
from typing import Final

TENANT_ID_PATTERN: Final = "[a-z0-9][a-z0-9-]{0,62}"
SYSTEM_TENANT: Final = "system"
"""The tenant of Pulse's own rows."""

_TENANT_ID = re.compile(TENANT_ID_PATTERN, re.ASCII)


def is_tenant_id(value: object) -> bool:
    """Return whether the value has the form of a tenant id."""
    return isinstance(value, str) and _TENANT_ID.fullmatch(value) is not None
