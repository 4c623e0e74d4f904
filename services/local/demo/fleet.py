"""Simulated fleet that posts batches over HTTP with device tokens, `python -m services.local.demo.fleet`.

Gateways report for their sensors, the furnace for itself. In each round the furnace is normal, then too hot, then
normal again, so that each round opens and closes one alert, even after a run that was interrupted.
"""

import argparse
import asyncio
import logging
import math
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import orjson

from services.local.demo.factory import HOT_DEVICE, DemoDevice
from services.shared import logging as json_logging

log = logging.getLogger("services.local.demo.fleet")

INTERVAL_SECONDS = 1.0
ROUND_SECONDS = 60.0
HOT_FROM_SECONDS, HOT_UNTIL_SECONDS = 2.0, 22.0
LARGEST_BATCH = 10_000
KEPT_BATCHES = 20
"""Number of batches that a sender keeps while the API is away. Older ones are lost."""
METRICS = {"temperature": (24.0, 4.0), "vibration": (3.0, 1.5), "battery": (76.0, 9.0)}
"""Mean and amplitude of each metric of a sensor."""


def furnace_temperature(seconds: float) -> float:
    """Return the degrees at a time since the start: about 60, and about 95 in the hot part of each round."""
    into = seconds % ROUND_SECONDS
    return (95.0 if HOT_FROM_SECONDS <= into < HOT_UNTIL_SECONDS else 60.0) + math.sin(seconds) * 2


def sensor_value(device_id: str, metric: str, seconds: float) -> float:
    """Return a slow wave with noise and a phase that depends on the device."""
    middle, swing = METRICS[metric]
    phase = sum(device_id.encode()) % 97
    return round(middle + swing * math.sin(seconds / 40 + phase) + random.gauss(0, swing / 20), 2)


@dataclass(slots=True)
class ReadingSender:
    """Token with the devices that it reports for, in the order of their turns."""

    token: str
    turns: Iterator[tuple[str, str]]
    share: float
    """Share of the fleet's readings that this sender posts, 0 to 1."""
    owed: float = 0.0
    unsent: list[list[dict[str, Any]]] = field(default_factory=list)

    def collect(self, *, rate: float, seconds: float, now: float) -> None:
        """Collect the readings that are due for one interval, with distinct times within it."""
        self.owed = min(self.owed + rate * self.share * INTERVAL_SECONDS, LARGEST_BATCH)
        count = int(self.owed)
        self.owed -= count
        batch = [
            {
                "device_id": device_id,
                "metric": metric,
                "value": sensor_value(device_id, metric, seconds),
                "timestamp": _timestamp(now - INTERVAL_SECONDS * (count - number) / count),
            }
            for number, (device_id, metric) in enumerate(islice(self.turns, count), start=1)
        ]
        if batch:
            self.unsent = [*self.unsent, batch][-KEPT_BATCHES:]


def build_senders(fleet: Sequence[DemoDevice], tokens: Mapping[str, str]) -> list[ReadingSender]:
    """Return a sender for each gateway. All sensors measure equally often."""
    sensors = [device for device in fleet if device.gateway]
    groups: dict[str, list[str]] = {}
    for sensor in sensors:
        groups.setdefault(str(sensor.gateway), []).append(sensor.device_id)
    return [
        ReadingSender(
            token=tokens[gateway],
            turns=cycle([(device_id, metric) for metric in METRICS for device_id in members]),
            share=len(members) / len(sensors),
        )
        for gateway, members in groups.items()
    ]


async def post(client: httpx.AsyncClient, token: str, readings: list[dict[str, Any]]) -> bool:
    """Send one batch. Return False if it should be sent again."""
    try:
        answer = await client.post(
            "/ingest/v1/readings", json={"readings": readings}, headers={"Authorization": f"Bearer {token}"}
        )
    except httpx.HTTPError as error:
        log.warning("the API does not answer: %s", type(error).__name__)
        return False
    if answer.status_code >= 500 or answer.status_code == 429:
        log.warning("the API answers %s", answer.status_code)
        return False
    if answer.is_error:
        log.error("batch refused: %s", answer.text[:500], extra={"status_code": answer.status_code})
    elif refused := answer.json().get("refused"):
        log.warning("readings refused", extra={"refused": len(refused), "first": refused[0]})
    return True


async def send_all(client: httpx.AsyncClient, sender: ReadingSender) -> None:
    """Send the sender's batches, oldest first, until one fails."""
    while sender.unsent and await post(client, sender.token, sender.unsent[0]):
        sender.unsent.pop(0)


async def run(*, url: str, fleet: Sequence[DemoDevice], tokens: Mapping[str, str], rate: float) -> None:
    """Send once per interval until canceled. A slow API delays the next interval, so requests do not pile up."""
    senders = build_senders(fleet, tokens)
    furnace = ReadingSender(token=tokens[HOT_DEVICE], turns=iter(()), share=0)
    started = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        while True:
            seconds, now = time.monotonic() - started, time.time()
            value = round(furnace_temperature(seconds), 2)
            reading = {"device_id": HOT_DEVICE, "metric": "temperature", "value": value, "timestamp": _timestamp(now)}
            furnace.unsent = [*furnace.unsent, [reading]][-KEPT_BATCHES:]
            for sender in senders:
                sender.collect(rate=rate, seconds=seconds, now=now)
            await asyncio.gather(*(send_all(client, sender) for sender in (furnace, *senders)))
            await asyncio.sleep(max(0.0, INTERVAL_SECONDS - (time.monotonic() - started - seconds)))


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def _run_until_stopped(**options: Any) -> None:
    task = asyncio.ensure_future(run(**options))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("stopped")


def main() -> int:
    """Read the file of the fleet and send its readings."""
    parser = argparse.ArgumentParser(prog="python -m services.local.demo.fleet", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8081", help="address of ui_iot")
    parser.add_argument("--rate", type=float, default=20.0, help="readings per second of the whole fleet")
    parser.add_argument("--file", type=Path, required=True, help="devices and tokens, as `pulse up` writes them")
    arguments = parser.parse_args()
    document = orjson.loads(arguments.file.read_bytes())
    json_logging.configure("fleet")
    fleet = [DemoDevice(**device) for device in document["devices"]]
    asyncio.run(_run_until_stopped(url=arguments.url, fleet=fleet, tokens=document["tokens"], rate=arguments.rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
