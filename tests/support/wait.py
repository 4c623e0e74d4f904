"""Waiting for a condition instead of a fixed time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

INTERVAL_SECONDS = 0.01


@overload
async def until(predicate: Callable[[], Awaitable[T]], *, seconds: float = ...) -> T: ...
@overload
async def until(predicate: Callable[[], T], *, seconds: float = ...) -> T: ...
async def until(predicate: Callable[[], object], *, seconds: float = 10.0) -> object:
    """Return the first true value of the predicate, a plain or async function; fail if none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = predicate()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {seconds} s: {inspect.getsource(predicate).strip()}")
        await asyncio.sleep(INTERVAL_SECONDS)


def until_now(predicate: Callable[[], T], *, seconds: float = 10.0) -> T:
    """Return the same value in a test without an event loop."""
    return asyncio.run(until(predicate, seconds=seconds))
