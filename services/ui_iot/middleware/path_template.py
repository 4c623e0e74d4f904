"""The route a request was answered by, as the application declares it: never a byte of the request itself."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

UNMATCHED = "__unmatched__"


class PathTemplates:
    """Finds the template of a request after the application has answered it."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._listed: list[_Candidate] | None = None
        self._declared: frozenset[tuple[str, str]] | None = None

    def of(self, scope: Scope) -> str:
        """The template, prefixes and mounts included; UNMATCHED when no route takes the request."""
        if "endpoint" not in scope:
            # The router leaves its mark before it looks: without it, the request was refused on the way there.
            return UNMATCHED if "router" in scope else self._search(scope)
        if "app_root_path" not in scope:
            # An included router's route does not know its prefix, its context does (FastAPI 0.137).
            context = scope.get("fastapi", _EMPTY).get("effective_route_context")
            selected = context if context is not None else scope.get("route")
            template = getattr(selected, "path_format", None)
            if template:
                return str(template)
        return self._search(scope)

    def methods_at(self, scope: Scope) -> set[str]:
        """Return the methods of every route with this path; mounted applications answer for themselves."""
        fresh = _fresh(scope)
        return {
            method
            for route, declared, start in self._candidates()
            if fresh["path"].startswith(start) and route.matches(dict(fresh))[0] is not Match.NONE
            for method in getattr(declared, "methods", None) or ()
        }

    def declares(self, method: str, template: str) -> bool:
        """Return whether a route has this method and template; mounted applications count as having none."""
        if self._declared is None:
            self._declared = frozenset(
                (known, str(getattr(route.declared, "path_format", "")))
                for route in self._candidates()
                for known in getattr(route.declared, "methods", None) or ()
            )
        return (method, template) in self._declared

    def _search(self, scope: Scope) -> str:
        """Match again: for mounted applications, whose root_path holds client bytes, and plain Starlette routes."""
        return _find(self._candidates(), _fresh(scope)) or UNMATCHED

    def _candidates(self) -> "list[_Candidate]":
        if self._listed is None:
            self._listed = _list(self._routes)
        return self._listed


def _fresh(scope: Scope) -> dict[str, Any]:
    """Return the request as it was before a router looked at it."""
    return {
        "type": scope["type"],
        "method": scope.get("method", "GET"),
        "path": scope["path"],
        "root_path": scope.get("app_root_path", scope.get("root_path", "")),
        "headers": [],
    }


_EMPTY: dict[str, Any] = {}


class _Candidate(NamedTuple):
    """A route with the prefixes of the routers it was included by."""

    route: Any
    declared: Any
    start: str
    """What every path that it takes begins with."""


def _list(routes: Sequence[BaseRoute]) -> list[_Candidate]:
    candidates = []
    for route in iter_route_contexts(routes):
        # Of what is Starlette's in an included router, older contexts know no path: that is with the route behind them.
        declared = getattr(route, "starlette_route", None) or route
        start = (getattr(declared, "path_format", None) or "").partition("{")[0]
        candidates.append(_Candidate(route, declared, start))
    return candidates


def _find(candidates: Iterable[_Candidate], scope: Scope) -> str | None:
    partial: str | None = None
    # Most are ruled out at a glance: a flood of refused requests pays for the others, a regular expression each.
    path: str | None = None if scope["root_path"] else scope["path"]
    for route, declared, start in candidates:
        if path is not None and not path.startswith(start):
            continue
        match, child_scope = route.matches(dict(scope))
        if match is Match.NONE:
            continue
        template: str | None = getattr(declared, "path_format", None)
        # Only what is mounted has routes of its own; as FastAPI's context of a route it is no Mount to isinstance.
        mounted = getattr(declared, "routes", None)
        if mounted is not None and template is not None:
            inside = _find(_list(mounted), {**scope, **child_scope})
            return template.removesuffix("/{path}") + (inside or "/{path}")
        if match is Match.FULL:
            return template
        partial = partial or template
    return partial
