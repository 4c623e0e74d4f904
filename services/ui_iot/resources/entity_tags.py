"""Entity tags and the preconditions that name them, by RFC 9110.

A tag has two parts, "version.whole". The whole covers all members of a GET, so If-None-Match never hides a change. The
version covers the members that changes compete for. Without it, a device that reports every second could not be changed
with If-Match, because last_seen_at advances between the GET and the PATCH.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, Self

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from services.ui_iot.http.problems import BadRequest, PreconditionFailed

_MALFORMED = '{} must be * or a list of entity tags in double quotes, such as "1f.2e".'
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


class Versioned(BaseModel):
    """Base of the models of changeable resources. Every answer with one has an ETag."""

    version: ClassVar[Collection[str]]
    """Members that a change may set, or that change with it."""
    once: ClassVar[Collection[str]] = ()
    """Members that only the answer to the creation has."""


def tag_of(model: type[Versioned], shown: Mapping[str, Any]) -> str:
    """Return the entity tag of a shown resource, without quotes."""
    lasting = {name: value for name, value in shown.items() if name not in model.once}
    return f"{_digest({name: lasting[name] for name in model.version})}.{_digest(lasting)}"


def _digest(members: Mapping[str, Any]) -> str:
    return sha256(orjson.dumps(members, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Tags:
    """The value of If-Match or If-None-Match. anything: the value is `*`."""

    strong: frozenset[str]
    weak: frozenset[str]
    anything: bool = False

    @classmethod
    def read(cls, request: Request, name: str) -> Self | None:
        """Return the header's value, None when it is absent; raise BadRequest when it is malformed."""
        lines = request.headers.getlist(name)
        if not lines:
            return None
        text = ", ".join(lines).strip(" \t")
        if text == "*":
            return cls(frozenset(), frozenset(), anything=True)
        found: dict[bool, set[str]] = {True: set(), False: set()}
        place, separated = 0, True
        while place < len(text):
            if text[place] in " \t,":
                separated = separated or text[place] == ","
                place += 1
                continue
            tag = _TAG.match(text, place) if separated else None
            if tag is None:
                raise BadRequest(_MALFORMED.format(name))
            found[tag[1] is not None].add(tag[2])
            place, separated = tag.end(), False
        if not any(found.values()):
            raise BadRequest(_MALFORMED.format(name))
        return cls(frozenset(found[False]), frozenset(found[True]))

    def hold_version(self, tag: str, *, weakly: bool = False) -> bool:
        """Return whether a listed tag has this tag's version."""
        listed = self.strong | self.weak if weakly else self.strong
        return self.anything or any(other.startswith(tag.partition(".")[0] + ".") for other in listed)

    def hold_whole(self, tag: str) -> bool:
        """Return whether the tag is listed, by weak comparison."""
        return self.anything or tag in self.strong or tag in self.weak


@dataclass(frozen=True, slots=True)
class Preconditions:
    """If-Match and If-None-Match of a request."""

    match: Tags | None
    none_match: Tags | None

    @classmethod
    def read(cls, request: Request) -> Self:
        """Return the request's preconditions. Raises BadRequest if one is malformed."""
        return cls(Tags.read(request, "If-Match"), Tags.read(request, "If-None-Match"))

    @property
    def are_set(self) -> bool:
        """The request has a precondition."""
        return self.match is not None or self.none_match is not None

    def check_change(self, tag: str) -> None:
        """Raise PreconditionFailed if a resource with this tag must not be changed."""
        if self.match is not None and not self.match.hold_version(tag):
            raise PreconditionFailed("It was changed since the ETag in If-Match was given out; get it again.")
        if self.none_match is not None and self.none_match.hold_version(tag, weakly=True):
            raise PreconditionFailed("It is what If-None-Match names.")

    def answer(self, response: Response, tag: str, *, reads: bool) -> Response:
        """Return the response with its ETag. A GET gets 304 if the client has it, and 412 if If-Match fails."""
        quoted = f'"{tag}"'
        if reads and self.match is not None and not self.match.hold_version(tag):
            raise PreconditionFailed("It was changed since the ETag in If-Match was given out.")
        if reads and self.none_match is not None and self.none_match.hold_whole(tag):
            return Response(status_code=304, headers={"ETag": quoted})
        response.headers["ETag"] = quoted
        return response
