"""A repeated line is written ten times a second, then counted; other lines are unaffected."""

import io
import logging
from typing import Any

import orjson
import pytest

from services.shared.log_repeats import PASSING
from services.shared.logging import JsonFormatter, LineHandler, tell, tell_repeats

START = 1_800_000_000.0


class Written:
    """A handler with its own clock, and its written lines."""

    def __init__(self) -> None:
        self._stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        self.handler = LineHandler(self._stream, JsonFormatter("test"))

    def log(self, message: str, *args: object, at: float, level: int = logging.WARNING, logger: str = "one") -> None:
        """Log a record with a given time."""
        record = logging.LogRecord(logger, level, __file__, 1, message, args, None)
        record.created = START + at
        self.handler.handle(record)

    def lines(self) -> list[dict[str, Any]]:
        """Return every line."""
        buffer = self._stream.buffer
        assert isinstance(buffer, io.BytesIO)
        return [orjson.loads(line) for line in buffer.getvalue().splitlines()]

    def found(self) -> list[tuple[str, int | None]]:
        """Return every line's message and count."""
        return [(line["message"], line.get("repeats")) for line in self.lines()]


@pytest.fixture
def written() -> Written:
    """A handler."""
    return Written()


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, written: Written) -> Written:
    """The handler of all loggers."""
    monkeypatch.setattr(logging.root, "handlers", [written.handler])
    return written


def test_ten_pass_then_one_a_second_with_the_count(written: Written) -> None:
    """A flood of three seconds gives ten lines and one a second; their counts add up to the number of records."""
    for number in range(3000):
        written.log("socket %d failed", number, at=number / 1000)
    written.handler.close()
    lines = written.lines()
    assert [line["message"] for line in lines[:PASSING]] == [f"socket {number} failed" for number in range(PASSING)]
    counts = [line["repeats"] for line in lines[PASSING:]]
    assert len(counts) == 3
    assert PASSING + sum(counts) == 3000
    assert lines[-1]["message"] == "socket 2999 failed"
    assert lines[-1]["level"] == "warning"


def test_only_the_same_logger_level_and_template_repeat(written: Written) -> None:
    """Lines of another kind stand between those of a flood."""
    for number in range(100):
        written.log("flood", at=number / 1000)
    written.log("flood", at=0.2, logger="two")
    written.log("flood", at=0.2, level=logging.ERROR)
    written.log("other", at=0.2)
    assert written.found()[PASSING:] == [("flood", None), ("flood", None), ("other", None)]


def test_lines_pass_again_after_a_flood(written: Written) -> None:
    """A line that comes every two seconds is written at once, even after a flood of a hundred in one second."""
    for number in range(100):
        written.log("line", at=number / 1000)
    for number in range(1, 4):
        written.log("line", at=2.0 * number)
    assert written.found()[PASSING:] == [("line", 90), ("line", 1), ("line", None), ("line", None)]


def test_slow_lines_all_pass(written: Written) -> None:
    """Ten a second is no flood, for any duration."""
    for number in range(300):
        written.log("each", at=number * 0.11)
    assert len(written.found()) == 300


def test_a_flood_that_ended_is_counted_without_another_line(configured: Written) -> None:
    """The tick of the process's server writes the due lines; closing the handler writes the rest."""
    for number in range(50):
        configured.log("flood", at=number / 1000)
    tell_repeats()
    assert configured.found()[PASSING:] == [("flood", 50 - PASSING)]
    configured.log("flood", at=5000.0)
    assert configured.found()[-1] == ("flood", None)


def test_a_clock_that_is_set_back_hides_nothing(written: Written) -> None:
    """A second in the future counts as over."""
    for number in range(20):
        written.log("flood", at=1000 + number / 1000)
    written.log("flood", at=0.0)
    assert written.found()[PASSING:] == [("flood", 10), ("flood", None)]


def test_kinds_are_bounded(written: Written) -> None:
    """A library that formats its own messages does not grow memory, and its lines pass."""
    for number in range(5000):
        written.log(f"message {number}", at=number / 1000)
    assert len(written.found()) == 5000
    assert len(written.handler._repeats._seconds) <= 1000  # noqa: SLF001  # the bound itself


@pytest.mark.parametrize("others", [[], [logging.NullHandler()]])
def test_each_unit_of_work_has_its_line(
    monkeypatch: pytest.MonkeyPatch, written: Written, others: list[logging.Handler]
) -> None:
    """Lines of `tell()`, such as those of requests, are never left out."""
    monkeypatch.setattr(logging.root, "handlers", [written.handler, *others])
    logger = logging.getLogger("test.each")
    logger.setLevel(logging.INFO)
    for number in range(100):
        tell(logger, logging.INFO, "GET /items 200", {"number": number})
    assert [line["number"] for line in written.lines()] == list(range(100))
    assert set(written.lines()[0]) >= {"timestamp", "message", "number"}
    assert not [key for line in written.lines() for key in line if key.startswith("_")]
