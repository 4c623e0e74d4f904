"""Names of accounts as they stand in the trail before anybody has proven to own them.

They are keyed: without the key no list of names can be tried against the rows.
"""

import hmac
import logging
import secrets
from pathlib import Path

from services.shared.write_once import write_once

log = logging.getLogger(__name__)

KEY_FILE = "pseudonym.key"
_SHORTEST_KEY = 16


class Pseudonyms:
    """Makes the pseudonym of an account."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, account: str) -> str:
        """acct_ and 32 hex digits of HMAC-SHA256: the same for the same account and key."""
        return "acct_" + hmac.digest(self._key, account.encode("utf-8", "replace"), "sha256").hex()[:32]


def read_key(file: Path) -> bytes:
    """The key in the file, made when there is none: of two processes at once, both get the first one's."""
    try:
        key = write_once(file, secrets.token_hex(32).encode()).strip()
        if len(key) >= _SHORTEST_KEY:
            return key
        log.error("the key of the audit pseudonyms in %s is too short: one for this run is used", file)
    except OSError as error:
        log.error(  # noqa: TRY400  # for an operator, who needs no traceback
            "no key of the audit pseudonyms in %s: %s; one for this run is used", file, error.strerror or error
        )
    return secrets.token_bytes(32)
