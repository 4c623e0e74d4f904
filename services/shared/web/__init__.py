"""The layers of every HTTP server around its application: probes, Host check, response headers, TLS."""

from services.shared.web.host_check import HostCheck, Hosts
from services.shared.web.probes import PROBE_PATHS, has_path
from services.shared.web.secure_headers import SecureHeaders, headers_for
from services.shared.web.tls import BadCertificate, ServerTls

__all__ = [
    "PROBE_PATHS",
    "BadCertificate",
    "HostCheck",
    "Hosts",
    "SecureHeaders",
    "ServerTls",
    "has_path",
    "headers_for",
]
