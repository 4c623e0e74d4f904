"""Paths that need no token and are left out of logs and limits."""

from collections.abc import Collection, Mapping
from typing import Any, Final

PROBE_PATHS: Final = frozenset(("/metrics", "/livez", "/healthz", "/readyz", "/health"))


def has_path(scope: Mapping[str, Any], paths: Collection[str]) -> bool:
    """Return whether the request names one of the paths literally.

    A percent-encoded path (/%6Civez) does not count, because proxies and logs see a different path.
    """
    path: str = scope["path"]
    if path not in paths:
        return False
    raw: bytes | None = scope.get("raw_path")
    return raw is None or raw == path.encode()
