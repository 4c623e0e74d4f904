"""JSON lines on standard output: one object for each record, with the trace of the task that logged it."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TextIO

import orjson

from services.shared import tracing
from services.shared.log_repeats import Repeats
from services.shared.visible_text import escape_json

EACH = "_pulse_each"
"""Name of an extra that marks a record of tell(), which is never suppressed as a repeat."""
_RECORD_ATTRIBUTES = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
    EACH,
}
_FIXED_KEYS = ("timestamp", "level", "logger", "service", "message", "trace_id", "span_id", "trace_flags")
# Datetimes are formatted here, because a time zone that raises would make orjson end the process.
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
# One record must stay one readable line, even if its values are long.
_LONGEST_NAME = 100
_LONGEST_TEXT = 2000
_LONGEST_LINE = 8000


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object. Extras are added to the fixed keys and never replace them."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._second = (0, "1970-01-01T00:00:00")

    def _timestamp(self, created: float) -> str:
        """Return RFC 3339 in UTC. The second is cached, because datetime would cost 1.5 µs a line."""
        number, text = self._second
        second = int(created)
        if second != number:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        return f"{text}.{int((created - second) * 1_000_000):06d}+00:00"

    def head(self, created: float, level: str, logger: str, message: str) -> dict[str, Any]:
        """Return the fixed keys of a line, with the trace of the running task."""
        context = tracing.current()
        return {
            "timestamp": self._timestamp(created),
            "level": level,
            "logger": logger,
            "service": self._service,
            "message": message,
            "trace_id": context.trace_id if context else None,
            "span_id": context.span_id if context else None,
            "trace_flags": context.flags if context else None,
        }

    def format(self, record: logging.LogRecord) -> str:
        """Return one line without a line break."""
        line = self.head(record.created, record.levelname.lower(), record.name[:_LONGEST_NAME], _message(record))
        for key, value in record.__dict__.items():
            if key not in _RECORD_ATTRIBUTES and key not in line:
                line[key] = _cut(value) if isinstance(value, str) else value
        if record.exc_info:
            # The end of a traceback names the error.
            line["exception"] = self.formatException(record.exc_info)[-_LONGEST_TEXT:]
        return _dump(line).decode()


def _message(record: logging.LogRecord) -> str:
    try:
        return _cut(record.getMessage())
    except Exception as error:  # noqa: BLE001  # an error in an argument's own code must not lose the line
        return f"{_text(record.msg)} (not formatted: {type(error).__name__})"


def _cut(text: str) -> str:
    # Not text[:…], which a subclass may override.
    return str.__getitem__(text, slice(_LONGEST_TEXT))


def _dump(line: dict[str, Any]) -> bytes:
    text = _encode(line)
    if len(text) > _LONGEST_LINE:
        kept = {key: line[key] for key in _FIXED_KEYS}
        # One character may take seven bytes.
        kept["message"] = kept["message"][: _LONGEST_LINE // 8]
        text = _encode({**kept, "truncated_bytes": len(text)})
    return escape_json(text)


def _encode(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=_told, option=_OPTIONS)
    except TypeError:
        return orjson.dumps({_text(key): _safe(value) for key, value in line.items()}, option=_OPTIONS)


def _told(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def _safe(value: Any) -> Any:
    """Return the value, or its text if JSON cannot hold it: lone surrogates, integers over 64 bits, unknown types."""
    try:
        return orjson.Fragment(orjson.dumps(value, default=_told, option=_OPTIONS))
    except TypeError:
        return _text(value)


def _text(value: object) -> str:
    """Return the text of a value with escaped lone surrogates, or its type if str() raises."""
    try:
        return _cut(str(value)).encode("utf-8", "backslashreplace").decode()
    except Exception as error:  # noqa: BLE001  # str() runs the object's own code
        return f"<{type(value).__name__}: {type(error).__name__}>"


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream. Repeated records are counted instead, except those of tell()."""

    def __init__(self, stream: TextIO, formatter: JsonFormatter) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)
        self._formatter = formatter
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after the counts of records that were suppressed before."""
        for counted in self._repeats.due(record.created):
            super().emit(counted)
        if getattr(record, EACH, False) or self._repeats.passes(record):
            super().emit(record)

    def tell_repeats(self, *, everything: bool = False) -> None:
        """Write the counts of suppressed records for past seconds; everything: for the current second as well."""
        self.acquire()
        try:
            for counted in self._repeats.due(math.inf if everything else time.time()):
                super().emit(counted)
        finally:
            self.release()

    def close(self) -> None:
        """Write all counts, and close."""
        self.tell_repeats(everything=True)
        super().close()

    def write(self, level: int, logger: str, message: str, extras: Mapping[str, Any]) -> None:
        """Write one line."""
        line = self._formatter.head(time.time(), logging.getLevelName(level).lower(), logger, message)
        line.update(extras)
        # A text stream would decode the bytes and encode them again.
        out = self.stream.buffer
        out.write(_dump(line) + b"\n")
        out.flush()


def tell(logger: logging.Logger, level: int, message: str, extras: Mapping[str, Any]) -> None:
    """Log one unit of work (a request, an alert, an attempt). extras must be short and not repeat a fixed key.

    The line is never suppressed as a repeat. If our handler is the only one, it takes 5 µs instead of 14.
    """
    if not logger.isEnabledFor(level):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], LineHandler):
        handlers[0].write(level, logger.name, message, extras)
    else:
        logger.log(level, message, extra={**extras, EACH: True})


def tell_repeats() -> None:
    """Log the number of suppressed records. Call it once a second in a process that may log nothing else."""
    for handler in logging.root.handlers:
        if isinstance(handler, LineHandler):
            handler.tell_repeats()


def configure(service: str, level: str = "INFO") -> None:
    """Send every logger of this process to standard output as JSON lines."""
    logging.basicConfig(level=level, handlers=[LineHandler(sys.stdout, JsonFormatter(service))], force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
