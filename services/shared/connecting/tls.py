"""TLS of a connection, with the defaults of libpq."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from services.shared.connecting.url import BadUrl

_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
_FILES = {"sslrootcert": "root.crt", "sslcrl": "root.crl", "sslcert": "postgresql.crt", "sslkey": "postgresql.key"}
_SYSTEM = "system"
_STRICT = ("verify-ca", "verify-full")
_ENCRYPTED = ("require", *_STRICT)


class _NamedContext(ssl.SSLContext):
    """A context that checks the host name of the URL although the connection goes to an address."""

    server_name: str | None = None

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Wrap for the host name of the URL."""
        return super().wrap_bio(*args, **{**options, "server_hostname": self.server_name})


@dataclass(frozen=True, slots=True)
class Tls:
    """The encryption of a connection."""

    mode: str
    direct: bool
    files: tuple[tuple[str, str], ...]
    """Files by the name of their parameter. Files that the URL does not name are included only if they exist."""
    password: str = field(repr=False)
    least: str
    most: str | None

    def attempts(self, host: str) -> tuple[ssl.SSLContext | None, ...]:
        """Return the contexts to try in turn; None means no TLS. Raises BadUrl."""
        if self.mode == "disable" or host.startswith("/"):
            return (None,)
        context = self._context(host)
        match self.mode:
            case "allow":
                return (None, context)
            case "prefer":
                return (context, None)
            case _:
                return (context,)

    def _context(self, host: str) -> ssl.SSLContext:
        return _make_context(self, host, tuple(_stamp(name, path) for name, path in self.files))


def read_tls(found: Mapping[str, str], env: Mapping[str, str]) -> Tls:
    """Return the TLS of the parameters. Raises BadUrl if they contradict each other."""
    is_system = found.get("sslrootcert") == _SYSTEM
    mode = found.get("sslmode") or ("verify-full" if is_system else "prefer")
    if is_system and mode != "verify-full":
        raise BadUrl(f"sslrootcert=system needs sslmode=verify-full, not {mode}")
    direct = found.get("sslnegotiation") == "direct"
    if direct and mode not in _ENCRYPTED:
        raise BadUrl(f"sslnegotiation=direct needs sslmode=require, verify-ca or verify-full, not {mode}")
    files = {name: found[name] for name in (*_FILES, "sslcrldir") if name in found}
    home = env.get("HOME")
    for name, usual in _FILES.items():
        path = Path(home or "/nonexistent", ".postgresql", usual)
        if name not in files and path.exists():
            files[name] = str(path)
    least, most = found.get("ssl_min_protocol_version", "TLSv1.2"), found.get("ssl_max_protocol_version")
    if most is not None and _VERSIONS[most] < _VERSIONS[least]:
        raise BadUrl(f"ssl_max_protocol_version {most} is below ssl_min_protocol_version {least}")
    return Tls(mode, direct, tuple(sorted(files.items())), found.get("sslpassword", ""), least, most)


def _stamp(name: str, path: str) -> tuple[int, int]:
    """Return a value that changes with the file. Raises BadUrl if it cannot be read."""
    if name == "sslrootcert" and path == _SYSTEM:
        return (0, 0)
    try:
        status = Path(path).stat()
        if name == "sslkey" and status.st_mode & (0o027 if status.st_uid == 0 else 0o077):
            raise BadUrl(f"sslkey {path} must be readable by its owner only: chmod 0600")
        if name != "sslcrldir":
            Path(path).open("rb").close()
    except (OSError, ValueError) as error:
        if isinstance(error, BadUrl):
            raise
        raise BadUrl(f"{name} {path} cannot be read: {getattr(error, 'strerror', None) or 'no such file'}") from None
    return (status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=16)
def _make_context(tls: Tls, host: str, _stamps: tuple[tuple[int, int], ...]) -> ssl.SSLContext:
    """Return a context, cached until a file changes, because loading the system's certificates takes 20 ms."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = host
    context.set_alpn_protocols(["postgresql"])
    context.minimum_version = _VERSIONS[tls.least]
    if tls.most is not None:
        context.maximum_version = _VERSIONS[tls.most]
    files = dict(tls.files)
    if tls.mode in _STRICT and "sslrootcert" not in files:
        raise BadUrl(
            f"sslmode={tls.mode} needs sslrootcert=FILE with the certificates of the authority, or sslrootcert=system"
        )
    verifies = tls.mode in _STRICT or (tls.mode == "require" and "sslrootcert" in files)
    context.check_hostname = tls.mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE
    if verifies:
        _load(context, files)
    if "sslcert" in files:
        try:
            context.load_cert_chain(files["sslcert"], files.get("sslkey"), password=lambda: tls.password)
        except (OSError, ValueError):
            raise BadUrl(f"sslcert {files['sslcert']} and its sslkey make no usable certificate") from None
    return context


def _load(context: ssl.SSLContext, files: Mapping[str, str]) -> None:
    if files["sslrootcert"] == _SYSTEM:
        context.set_default_verify_paths()
    else:
        _load_locations(context, "sslrootcert", files["sslrootcert"])
    if "sslcrl" in files:
        _load_locations(context, "sslcrl", files["sslcrl"])
    if "sslcrldir" in files:
        context.load_verify_locations(capath=files["sslcrldir"])
    if "sslcrl" in files or "sslcrldir" in files:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _load_locations(context: ssl.SSLContext, name: str, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError):
        raise BadUrl(f"{name} {path} holds no certificate in PEM form") from None
