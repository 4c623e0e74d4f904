"""Faults of identity providers, described for the operator: the request, the answer and the remedy."""

import logging
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

# One log line in this time. Without keys, a fetch is tried every second.
LOG_SECONDS = 60.0
_LONGEST_TEXT = 300

# Errors of a request to an address that is invalid or does not answer. httpx's InvalidURL is no HTTPError, and a
# connection that tried several addresses may fail with an ExceptionGroup.
UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, OSError, ExceptionGroup)


class ProviderError(Exception):
    """The provider did not answer as OpenID Connect requires."""

    def __init__(self, fault: str, *, url: str = "", advice: str = "") -> None:
        text = f"{shown(url)}: {fault}" if url else fault
        super().__init__(f"{text}; {advice}" if advice else text)


def shown(url: str) -> str:
    """Return the URL without credentials and query, which may be secrets, and without control characters."""
    try:
        parts = urlsplit(url)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    except ValueError:
        bare = url.partition("?")[0].rpartition("@")[2]
    return "".join(each if each.isprintable() else "?" for each in bare)[:_LONGEST_TEXT]


def unreachable(error: Exception, url: str) -> ProviderError:
    """Return the fault of an address that did not answer."""
    text = str(error)
    if _is_certificate_fault(error) or "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "unknown authority"
        return ProviderError(
            f"no answer: its TLS certificate is not trusted ({reason})",
            url=url,
            advice="for a private CA set PULSE_CA_FILE to its certificate",
        )
    if "does not resolve" in text:
        return ProviderError("no answer: the name does not resolve", url=url, advice="check the name and the DNS")
    kind = type(error).__name__
    advice = "check the address, the network and PULSE_EGRESS_PROXY"
    return ProviderError(f"no answer: {text[:_LONGEST_TEXT] or kind}", url=url, advice=advice)


def _is_certificate_fault(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def wrong_status(response: httpx.Response, url: str) -> ProviderError:
    """Return the fault of an answer whose status is not 200."""
    status = response.status_code
    if 300 <= status < 400:
        target = shown(response.headers.get("location", ""))
        return ProviderError(
            f"HTTP {status}, a redirect to {target or 'nowhere'}",
            url=url,
            advice="redirects are not followed: configure the address that answers, spelled as the provider spells it",
        )
    if status in (401, 403, 407):
        advice = "the address must be readable without a login"
    elif status == 404:
        advice = "check the issuer: path, realm or tenant, and trailing slash"
    else:
        advice = "look into the provider's log"
    return ProviderError(f"HTTP {status}", url=url, advice=advice)


def not_json(response: httpx.Response, url: str) -> ProviderError:
    """Return the fault of a body that is not JSON."""
    kind = response.headers.get("content-type", "").partition(";")[0][:50]
    looks_like_html = "html" in kind.lower() or response.content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"
    what = "HTML" if looks_like_html else "something"
    shown_kind = "".join(each for each in kind if each.isprintable())
    return ProviderError(
        f"HTTP {response.status_code} with {what} that is not JSON (content type {shown_kind or 'unset'})",
        url=url,
        advice="a login page or a proxy answers there: check the address",
    )


class FaultLog:
    """Logs faults of one kind, at most one line in LOG_SECONDS, and keeps the newest."""

    def __init__(self, log: logging.Logger, subject: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._subject = subject
        self._clock = clock
        self._logged_at = float("-inf")
        self.newest: str | None = None
        """The fault of the last try, or None if it succeeded."""

    def report(self, fault: str, *, effect: str) -> None:
        """Keep the fault, and log it unless another was logged within LOG_SECONDS."""
        self.newest = fault
        if self._clock() - self._logged_at >= LOG_SECONDS:
            self._logged_at = self._clock()
            self._log.warning("%s: %s: %s", effect, self._subject, fault)

    def clear(self) -> None:
        """Note that the last try succeeded."""
        self.newest = None
