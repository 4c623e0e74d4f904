"""Paths that are served without a token and outside logs and limits."""

from collections.abc import Collection, Mapping
from typing import Any, Final

PROBE_PATHS: Final = frozenset(("/metrics", "/livez", "/healthz", "/readyz", "/health"))


def has_path(scope: Mapping[str, Any], paths: Collection[str]) -> bool:
    """Return whether the request names one of the paths literally.

    A path written with percent-encoding (/%6Civez) is not one of them: proxies and logs see another path.
    """
    path: str = scope["path"]
    if path not in paths:
        return False
    raw: bytes | None = scope.get("raw_path")
    return raw is None or raw == path.encode()
