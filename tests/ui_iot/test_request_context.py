"""One typed object carries a request's state, and one method records the result of its authentication."""

import ast
from typing import Any

import pytest

from services.shared.audit import AuditBlocked
from services.shared.db import Actor
from services.shared.metrics import ProcessMetrics
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.request_context import SCOPE_KEY, Outcome, Refreshed, RequestContext, find_context
from tests.support.migrator import ROOT

ALICE = Principal("acme", "viewer", Actor("user", "alice"))
WRONG = Refusal("invalid_token", "The token's signature is wrong.")


class Trail:
    """An audit logger that keeps its events. blocked: nothing can be stored."""

    def __init__(self, *, blocked: bool = False) -> None:
        self.auth = self
        self.events: list[tuple[str, Any]] = []
        self._blocked = blocked

    def success(self, **_facts: Any) -> str:
        """Name the event."""
        return "success"

    def failure(self, *, reason: str, **_facts: Any) -> str:
        """Name the event."""
        return reason

    def token_refresh(self, **_facts: Any) -> str:
        """Name the event."""
        return "refresh"

    async def record(self, event: str, read: str | None = None) -> bool:
        """Keep the event."""
        if self._blocked:
            raise AuditBlocked
        self.events.append((event, read))
        return True

    def log(self, event: str, read: str | None = None) -> None:
        """Keep the event."""
        self.events.append((f"{event} without waiting", read))


def open_context(trail: Any, principal: Principal | None = ALICE, method: str = "GET") -> RequestContext:
    """Return the context of a new request."""
    metrics = ProcessMetrics("ui_iot")
    scope = {"type": "http", "method": method, "path": "/api/v1/alerts"}
    context = RequestContext(scope, None, audit=trail, metrics=metrics)
    assert find_context(scope) is context
    context.principal = principal
    return context


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        (Outcome.ADMITTED, [("success", "unmatched")]),
        (Outcome.UNROUTED, [("success", "unrouted")]),
        (Outcome.LIMITED, []),
        (Refreshed(ALICE), [("refresh", None)]),
        (WRONG, [("invalid_token", None)]),
    ],
)
async def test_the_first_outcome_is_recorded_and_no_later_one(outcome: Any, event: list[Any]) -> None:
    trail = Trail()
    context = open_context(trail)
    await context.settle(outcome)
    for later in (Outcome.ADMITTED, Refreshed(None), WRONG):
        await context.settle(later)
    context.abandon()
    assert trail.events == event
    assert context.is_on_record is bool(event)


async def test_an_abandoned_request_is_recorded_without_waiting() -> None:
    trail = Trail()
    context = open_context(trail, method="POST")
    context.abandon()
    await context.settle(Outcome.ADMITTED)
    assert trail.events == [("success without waiting", None)]
    assert not context.is_on_record


@pytest.mark.parametrize("outcome", [Outcome.ADMITTED, Outcome.UNROUTED, Refreshed(ALICE)])
async def test_an_unrecorded_admission_is_none(outcome: Any) -> None:
    with pytest.raises(AuditBlocked):
        await open_context(Trail(blocked=True)).settle(outcome)


async def test_a_refusal_stands_without_its_event() -> None:
    context = open_context(Trail(blocked=True), principal=None)
    await context.settle(WRONG)
    assert not context.is_on_record


def test_nothing_else_adds_to_the_scope_of_a_request() -> None:
    """Parts of a request could disagree about the names of untyped members."""
    found = {
        (path.name, node.value)
        for path in (ROOT / "services" / "ui_iot").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("pulse.")
    }
    assert found == {("request_context.py", SCOPE_KEY)}
