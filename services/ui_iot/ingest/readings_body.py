"""Decodes and checks the body of a request with readings without blocking the event loop for long."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from services.ui_iot.http.json_shape import PIECE_BYTES, JsonShape
from services.ui_iot.ingest.readings import ReadingBatch, ReadingLimits, check_readings, decode_readings
from services.ui_iot.limits.turns import Turns

# A reading has five values: itself and its members. Other shapes are refused one by one while they are few.
VALUES_PER_READING = 10
_FEW_VALUES = 1000
_SLICE = 1000


async def decode_body(body: bytes, turns: Turns, *, most_readings: int) -> list[Any] | None:
    """Return the result of decode_readings after checking the shape of the body.

    Raises TooLarge or Unprocessable for its shape, and ValueError if it is not JSON.
    """
    shape = JsonShape(
        most_values=max(_FEW_VALUES, VALUES_PER_READING * most_readings),
        setting=f"{VALUES_PER_READING} times PULSE_INGEST_MAX_READINGS",
    )
    if len(body) <= PIECE_BYTES:
        shape.feed(body)
        return decode_readings(body)
    for start in range(0, len(body), PIECE_BYTES):
        await turns.take(partial(shape.feed, body[start : start + PIECE_BYTES]))
    return await turns.take(partial(decode_readings, body))


async def check_items(items: Sequence[Any], limits: ReadingLimits, turns: Turns) -> ReadingBatch:
    """Return the result of check_readings, computed in slices."""
    if len(items) <= _SLICE:
        return check_readings(items, limits)
    batch = ReadingBatch()
    for first in range(0, len(items), _SLICE):
        part = items[first : first + _SLICE]
        await turns.take(partial(check_readings, part, limits, batch=batch, first=first))
    return batch
