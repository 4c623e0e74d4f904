"""Parameters of a connection URL, split as by libpq. Messages never quote a possible password."""

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

_SCHEME = re.compile(r"postgres(?:ql)?://")
_NAME = re.compile(r"[A-Za-z_]{1,40}")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
ENCODE = "write @ : / ? # % in a user name or password as %40 %3A %2F %3F %23 %25"


class BadUrl(ValueError):
    """A URL that cannot be used. The message is one line without secrets."""


def split_url(url: str) -> dict[str, str]:
    """Return the parameters that the URL itself names. Raises BadUrl."""
    url = url.strip()
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise BadUrl("must be a URL that begins with postgresql://")
    if re.search(r"\s", url):
        raise BadUrl("holds a space: write it as %20")
    rest = url[scheme.end() :]
    found: dict[str, str] = {}
    login = re.match(r"[^@/]*@", rest)
    if login is not None:
        user, _, password = login[0][:-1].partition(":")
        found |= {"user": _decode(user, "the user name"), "password": _decode(password, "the password")}
        rest = rest[login.end() :]
    hosts, ports, rest = _split_hosts(rest)
    found |= {"host": _decode(hosts, "the host"), "port": _decode(ports, "the port")}
    if rest.startswith("/"):
        database, mark, query = rest[1:].partition("?")
        if "@" in database:
            raise BadUrl(f"holds an @ behind its first /: {ENCODE}")
        found["dbname"] = _decode(database, "the name of the database")
        rest = mark + query
    named = {name: value for name, value in found.items() if value}
    return {**named, **dict(_split_query(rest.removeprefix("?")))}


def _split_hosts(text: str) -> tuple[str, str, str]:
    """Return hosts and ports, each joined by commas, and the text after them."""
    hosts, ports = [], []
    while True:
        part = re.match(r"\[([^\]/?]*)\](?=[:,/?]|$)", text) or re.match(r"([^:/?,\[]*)", text)
        assert part is not None
        host, text = part[1], text[part.end() :]
        if text.startswith("[") or (part[0].startswith("[") and not host):
            raise BadUrl("holds a [ that begins no IPv6 address such as [::1]")
        port = ""
        if text.startswith(":"):
            port = re.split(r"[/?,]", text[1:], maxsplit=1)[0]
            text = text[1 + len(port) :]
        hosts.append(host)
        ports.append(port)
        if not text.startswith(","):
            return ",".join(hosts), ",".join(ports), text
        text = text[1:]


def _split_query(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split("&") if text else ():
        name, separator, value = part.partition("=")
        if not separator and part is text.rsplit("&", maxsplit=1)[-1] and not part:
            return  # libpq allows a trailing &
        name = _decode(name, "a parameter's name")
        if not _NAME.fullmatch(name):
            raise BadUrl(f"names a parameter that libpq does not have: {ENCODE}")
        if not separator or "=" in value:
            raise BadUrl(f"must say {name}=value, with %3D for a = inside the value")
        yield ("sslmode", "require") if (name, value) == ("ssl", "true") else (name, _decode(value, name))


def _decode(text: str, what: str) -> str:
    if _BAD_PERCENT.search(text):
        raise BadUrl(f"{what} holds a % that begins no %XX: write it as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadUrl(f"{what} is not UTF-8 when its %XX are decoded") from None
