"""The body of a request with readings, read without holding the event loop for long."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from services.ui_iot.http.json_shape import PIECE_BYTES, Shape
from services.ui_iot.ingest.readings import Batch, Limits, check_readings, decode_readings
from services.ui_iot.limits.turns import Turns

# A reading is five values: itself and its members. Others are refused one by one, as long as they are few.
VALUES_PER_READING = 10
_FEW_VALUES = 1000
_SLICE = 1000


async def decode_body(body: bytes, turns: Turns, *, most_readings: int) -> list[Any] | None:
    """Return what decode_readings returns, after a look at the shape of the body.

    Raises TooLarge, Unprocessable, and ValueError when the body is not JSON.
    """
    shape = Shape(
        most_values=max(_FEW_VALUES, VALUES_PER_READING * most_readings),
        setting=f"{VALUES_PER_READING} times PULSE_INGEST_MAX_READINGS",
    )
    if len(body) <= PIECE_BYTES:
        shape.feed(body)
        return decode_readings(body)
    for start in range(0, len(body), PIECE_BYTES):
        await turns.take(partial(shape.feed, body[start : start + PIECE_BYTES]))
    return await turns.take(partial(decode_readings, body))


async def check_items(items: Sequence[Any], limits: Limits, turns: Turns) -> Batch:
    """Return what check_readings returns."""
    if len(items) <= _SLICE:
        return check_readings(items, limits)
    batch = Batch()
    for first in range(0, len(items), _SLICE):
        part = items[first : first + _SLICE]
        await turns.take(partial(check_readings, part, limits, batch=batch, first=first))
    return batch
