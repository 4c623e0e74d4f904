"""Waiting for the first of several events."""

import asyncio


async def wait_for_any(seconds: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or after that time."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
