"""The route that answered a request, as the application declares it, without a byte of the request itself."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

UNMATCHED = "__unmatched__"


class PathTemplates:
    """The templates of an application's routes, looked up after the application has answered."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._listed: list[_Candidate] | None = None
        self._declared: frozenset[tuple[str, str]] | None = None

    def of(self, scope: Scope) -> str:
        """Return the template with its prefixes, or UNMATCHED when no route takes the request."""
        if "endpoint" not in scope:
            # The router sets "router" before it looks for a route. Without it, a middleware refused the request.
            return UNMATCHED if "router" in scope else self._search(scope)
        # An included router's route does not know its prefix, its context does (FastAPI 0.137).
        context = scope.get("fastapi", _EMPTY).get("effective_route_context")
        selected = context if context is not None else scope.get("route")
        template = getattr(selected, "path_format", None)
        return str(template) if template else self._search(scope)

    def methods_at(self, scope: Scope) -> set[str]:
        """Return the methods of every route with this path."""
        return {
            method
            for candidate in self._candidates()
            if candidate.match(scope) is not Match.NONE
            for method in candidate.methods
        }

    def declares(self, method: str, template: str) -> bool:
        """Return whether a route has this method and template."""
        if self._declared is None:
            self._declared = frozenset(
                (known, candidate.template) for candidate in self._candidates() for known in candidate.methods
            )
        return (method, template) in self._declared

    def _search(self, scope: Scope) -> str:
        """Match again: plain Starlette routes leave no mark in the scope."""
        partial: str | None = None
        for candidate in self._candidates():
            match = candidate.match(scope)
            if match is Match.FULL:
                return candidate.template
            if match is Match.PARTIAL:
                partial = partial or candidate.template
        return partial or UNMATCHED

    def _candidates(self) -> "list[_Candidate]":
        if self._listed is None:
            self._listed = [_candidate(route) for route in iter_route_contexts(self._routes)]
        return self._listed


_EMPTY: dict[str, Any] = {}


class _Candidate(NamedTuple):
    """A route with the prefixes of the routers that include it."""

    route: Any
    template: str
    methods: frozenset[str]
    start: str
    """The literal beginning of every path that matches."""

    def match(self, scope: Scope) -> Match:
        """Match a request as it was before a router changed its scope."""
        # Most routes are ruled out here, without a regular expression: refused requests may come in floods.
        if not scope["path"].startswith(self.start):
            return Match.NONE
        fresh = {
            "type": "http",
            "method": scope.get("method", "GET"),
            "path": scope["path"],
            "root_path": scope.get("root_path", ""),
            "headers": [],
        }
        match: Match = self.route.matches(fresh)[0]
        return match


def _candidate(route: Any) -> _Candidate:
    # In older versions of FastAPI the context of a Starlette route has no path, but the route behind it does.
    declared = getattr(route, "starlette_route", None) or route
    template = str(declared.path_format)
    return _Candidate(route, template, frozenset(declared.methods or ()), template.partition("{")[0])
