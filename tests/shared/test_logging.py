"""Every record is one JSON line with the trace, for any logged value."""

import io
import logging
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared import tracing
from services.shared.logging import JsonFormatter, LineHandler, tell

FIXED = {"timestamp", "level", "logger", "service", "message", "trace_id", "span_id", "trace_flags"}


def line(message: str, *args: Any, extra: dict[str, Any] | None = None, exc_info: Any = None) -> dict[str, Any]:
    """Return the written record, parsed."""
    record = logging.getLogger("test").makeRecord(
        "test", logging.INFO, __file__, 1, message, args, exc_info, extra=extra
    )
    text = JsonFormatter("dispatcher").format(record)
    assert "\n" not in text
    assert len(text.encode()) < 8192
    parsed: dict[str, Any] = orjson.loads(text)
    return parsed


def test_the_fixed_keys_and_the_trace() -> None:
    """Service, level, logger, message and the ids of the running task stand at the top level."""
    with tracing.use_trace_id("a" * 32) as context:
        written = line("job %s", 7, extra={"job_id": 7, "at": datetime(2026, 1, 5, tzinfo=UTC)})
    assert written["message"] == "job 7"
    assert (written["trace_id"], written["span_id"], written["trace_flags"]) == ("a" * 32, context.span_id, "01")
    assert (written["service"], written["level"], written["logger"]) == ("dispatcher", "info", "test")
    assert (written["job_id"], written["at"]) == (7, "2026-01-05T00:00:00Z")


def test_extras_never_replace_the_fixed_keys() -> None:
    """An extra with a fixed key's name is dropped."""
    with tracing.use_trace_id("a" * 32):
        written = line("true", extra={"trace_id": "forged", "service": "forged", "level": "forged", "span_id": "x"})
    assert "forged" not in orjson.dumps(written).decode()


def test_an_exception_is_part_of_the_line() -> None:
    """A long traceback keeps its end."""
    nothing: dict[str, int] = {}
    with pytest.raises(KeyError) as raised:
        _ = nothing["x" * 5000 + " the end"]
    written = line("failed", exc_info=(raised.type, raised.value, raised.tb))
    assert written["exception"].endswith("the end'")


@pytest.mark.parametrize(
    "value", ["\ud800", 2**200, object(), {"a": {1: "\ud800"}}, b"\xff", float("nan"), "x" * 100_000]
)
def test_odd_values_cost_no_record(value: Any) -> None:
    """Values that JSON cannot hold are written as text."""
    assert line("odd", extra={"value": value})["message"] == "odd"


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.floats() | st.binary() | st.none()))
def test_anything_gives_one_valid_line(message: str, extra: dict[str, Any]) -> None:
    """Arbitrary messages and extras never break a line or lose its fixed keys."""
    reserved = {"message", "asctime", *vars(logging.makeLogRecord({}))}
    written = line("%s", message, extra={key: value for key, value in extra.items() if key not in reserved})
    assert written.keys() >= FIXED


@pytest.mark.parametrize("path", ["/items/7", "/\ud800\x00\u2028" + "x" * 300, '\\"\n'])
def test_a_line_is_the_same_with_any_other_handlers(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directly to the stream if only our handler is installed, as a record if there is another one."""
    lines = []
    for others in ([], [logging.NullHandler()]):
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding="utf-8")
        monkeypatch.setattr(logging.root, "handlers", [LineHandler(stream, JsonFormatter("ui_iot")), *others])
        with tracing.use_trace_id("ab" * 16) as context:
            tell(
                logging.getLogger("told"),
                logging.ERROR,
                "GET %s 500",
                {"path": path, "status_code": 500, "nobody": None},
            )
        [text] = written.getvalue().splitlines()
        lines.append({**orjson.loads(text), "timestamp": None})
        assert lines[-1].pop("span_id") == context.span_id
    assert lines[0] == lines[1]
    assert (lines[0]["level"], lines[0]["message"], lines[0]["status_code"]) == ("error", "GET %s 500", 500)
