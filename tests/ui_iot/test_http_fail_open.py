"""If the measuring code fails, the client gets the same bytes and the fault is counted once per request."""

import logging
import re
from types import SimpleNamespace
from typing import Any, Self

import prometheus_client.metrics
import pytest
from starlette.types import Receive, Scope, Send

from services.shared import tracing
from services.ui_iot.auth.request_context import SCOPE_KEY
from services.ui_iot.middleware.exchange import Exchange
from services.ui_iot.middleware.http_meter import log
from tests.support.http_app import Gates, Measured, make_app, served
from tests.support.raw_http import RawConnection

PATHS = ("/v1/items/7", "/teapot", "/wrong", "/nowhere", "/half/x", "/files/a/b", "/plain")
ERRORS = "pulse_http_measuring_errors_total"


def fail(*_args: Any, **_rest: Any) -> Any:
    """Return what stands in for anything that breaks."""
    raise RuntimeError("measuring is broken")


class Uncountable(int):
    """A gauge that breaks when it goes up."""

    __add__ = fail


class Unreturnable(int):
    """A gauge that breaks when it goes down."""

    __sub__ = fail

    def __add__(self, _other: int) -> Self:
        return self


class Silent:
    """A request context that does not say whether the request is on record."""

    is_on_record = property(fail)
    principal = ip_address = None


BREAK = "_break_"


class Broken:
    """A middleware with one broken part. `more` is merged into the scope of each request."""

    def __init__(self, measured: Measured, patch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
        self._meter = meter(measured)
        self._measured = measured
        self._patch = patch
        self._more = more

    def break_part(self, part: str) -> None:
        """Break one of PARTS."""
        getattr(self, BREAK + part)()

    def _break_gauge_up(self) -> None:
        self._patch.setattr(self._meter, "in_progress", Uncountable())

    def _break_gauge_down(self) -> None:
        self._patch.setattr(self._meter, "in_progress", Unreturnable())

    def _break_context(self) -> None:
        self._patch.setattr(tracing, "from_headers", fail)

    def _break_outcome(self) -> None:
        self._patch.setattr(Exchange, "_outcome", fail)

    def _break_template(self) -> None:
        self._patch.setattr(self._measured.templates, "of", fail)

    def _break_registry(self) -> None:
        self._patch.setattr(self._measured.metrics.http_request_duration, "labels", fail)

    def _break_cache(self) -> None:
        self._patch.setattr(self._meter, "_series", SimpleNamespace(get=fail))

    def _break_observation(self) -> None:
        self._patch.setattr(self._meter, "_series", SimpleNamespace(get=lambda _key: SimpleNamespace(observe=fail)))

    def _break_attempt(self) -> None:
        self._more[SCOPE_KEY] = Silent()

    def _break_exemplar(self) -> None:
        self._more[SCOPE_KEY] = SimpleNamespace(is_on_record=True, principal=None, ip_address=None)
        self._patch.setattr(prometheus_client.metrics, "_validate_exemplar", fail)

    def _break_log_line(self) -> None:
        self._more[SCOPE_KEY] = SimpleNamespace(is_on_record=False, principal=object(), ip_address=None)

    def _break_log_handler(self) -> None:
        self._patch.setattr(log, "handle", fail)

    def _break_everything(self) -> None:
        self._break_context()
        self._break_template()
        self._break_log_handler()


PARTS = [name.removeprefix(BREAK) for name in vars(Broken) if name.startswith(BREAK)]


def meter(measured: Measured) -> Any:
    """Return what counts."""
    return measured.app._meter  # noqa: SLF001  # broken on purpose


async def ask(port: int, path: str) -> bytes:
    """Return the whole response without trace id and date."""
    async with RawConnection(port) as connection:
        connection.request("GET", path)
        response = await connection.read_all()
    assert b"x-trace-id: " in response
    return re.sub(rb"[0-9a-f]{32}|date: [^\r]+", b"-", response)


async def test_no_fault_in_measuring_changes_a_byte(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Over a real server, each measuring step fails in turn."""
    caplog.set_level(logging.INFO, logger=log.name)
    api = make_app(Gates())
    more: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(more)
        await api(scope, receive, send)

    measured = Measured(app, api.routes)
    async with served(measured.app) as port:
        whole = [await ask(port, path) for path in PATHS]
        assert measured.value(ERRORS) == 0
        for name in PARTS:
            before = measured.value(ERRORS) or 0
            with monkeypatch.context() as patch:
                patch.setattr(meter(measured), "_series", {})  # a series that is known needs no label
                Broken(measured, patch, more).break_part(name)
                assert [await ask(port, path) for path in PATHS] == whole, name
            more.clear()
            assert measured.value(ERRORS) == before + len(PATHS), name
            assert measured.value("pulse_http_requests_in_progress") == 0, name
        with monkeypatch.context() as patch:
            # The counter of faults is broken as well.
            patch.setattr(measured.templates, "of", fail)
            patch.setattr(meter(measured), "_errors", SimpleNamespace(inc=fail))
            assert [await ask(port, path) for path in PATHS] == whole
