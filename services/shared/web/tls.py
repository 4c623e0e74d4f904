"""TLS certificates of the HTTP servers, loaded again when their files change."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final, Self

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0


class BadCertificate(Exception):
    """A certificate or key that cannot be used."""


class ServerTls:
    """A TLS context whose certificate can be replaced. Open connections keep the old one."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._loaded = self._stamp()
        self._refused: str | None = None
        self.context = _new_context()
        self._load(self.context)

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None) -> Self | None:
        """Return the TLS of a process, or None if it has no files. Raises BadCertificate."""
        return None if certificate is None or key is None else cls(certificate, key)

    async def watch(self) -> None:
        """Check for changed files until canceled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.renew()

    def renew(self) -> bool:
        """Load changed files for new connections. Return whether they were loaded; a key that does not fit is not."""
        try:
            stamp = self._stamp()
            if stamp == self._loaded:
                return False
            # Loading a certificate without its key into the served context would break every new connection.
            self._load(_new_context())
            self._load(self.context)
        except BadCertificate as fault:
            # Two files cannot be replaced at once, so the second one may follow in a moment.
            if str(fault) != self._refused:
                self._refused = str(fault)
                log.warning("certificate not replaced: %s", fault)
            return False
        self._loaded, self._refused = stamp, None
        log.info("certificate replaced", extra={"file": str(self._certificate)})
        return True

    def _stamp(self) -> tuple[object, ...]:
        try:
            found = [path.stat() for path in (self._certificate, self._key)]
        except OSError as error:
            raise BadCertificate(f"{error.filename}: {error.strerror}") from None
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # Without a password OpenSSL would prompt for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise BadCertificate(f"{self._certificate} with {self._key}: {reason}") from None


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    return context
