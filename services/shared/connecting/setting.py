"""Types of settings that are URLs of a database."""

from typing import Annotated

from pydantic import AfterValidator

from services.shared.connecting.target import check_url


def _check_url(url: str) -> str:
    check_url(url)
    return url


def _check_listen_url(url: str) -> str:
    return url if url == "off" else _check_url(url)


DatabaseUrl = Annotated[str, AfterValidator(_check_url)]
ListenUrl = Annotated[str, AfterValidator(_check_listen_url)]
"""A URL, or `off`."""
