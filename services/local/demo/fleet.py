"""A simulated fleet that posts real batches over HTTP with device tokens, `python -m services.local.demo.fleet`.

Gateways report for their sensors, the furnace for itself. Every round the furnace is normal first, then too hot, then
normal again, so that each round opens and closes one alert, also after a run that was cut off in between.
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
"""Batches a sender keeps while the API is away; older ones are lost, as in a device with little memory."""
METRICS = {"temperature": (24.0, 4.0), "vibration": (3.0, 1.5), "battery": (76.0, 9.0)}
"""Middle and swing of each metric of a sensor."""


def furnace_temperature(seconds: float) -> float:
    """Degrees at a time since the start: 60 or a little more, and 95 in the hot part of each round."""
    into = seconds % ROUND_SECONDS
    return (95.0 if HOT_FROM_SECONDS <= into < HOT_UNTIL_SECONDS else 60.0) + math.sin(seconds) * 2


def sensor_value(device_id: str, metric: str, seconds: float) -> float:
    """A slow wave with noise; each device has its own phase."""
    middle, swing = METRICS[metric]
    phase = sum(device_id.encode()) % 97
    return round(middle + swing * math.sin(seconds / 40 + phase) + random.gauss(0, swing / 20), 2)


@dataclass(slots=True)
class ReadingSender:
    """One token and the devices it reports for, in the order in which they take turns."""

    token: str
    turns: Iterator[tuple[str, str]]
    share: float
    """Part of the fleet's readings that this sender brings, 0 to 1."""
    owed: float = 0.0
    unsent: list[list[dict[str, Any]]] = field(default_factory=list)

    def collect(self, *, rate: float, seconds: float, now: float) -> None:
        """Measure what is due for one interval, spread over it, so that no reading has another's time."""
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
    """A sender for each gateway; all sensors measure equally often."""
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
    """Send one batch; False when it should be sent again later."""
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
    """Send what the sender has, oldest first, until one fails."""
    while sender.unsent and await post(client, sender.token, sender.unsent[0]):
        sender.unsent.pop(0)


async def run(*, url: str, fleet: Sequence[DemoDevice], tokens: Mapping[str, str], rate: float) -> None:
    """Send for ever, once an interval; a slow API delays the next interval instead of piling requests up."""
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
    """Read the fleet's file and send."""
    parser = argparse.ArgumentParser(prog="python -m services.local.demo.fleet", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8081", help="address of ui_iot")
    parser.add_argument("--rate", type=float, default=20.0, help="readings a second of the whole fleet")
    parser.add_argument("--file", type=Path, required=True, help="devices and tokens, as `pulse up` writes them")
    arguments = parser.parse_args()
    document = orjson.loads(arguments.file.read_bytes())
    json_logging.configure("fleet")
    fleet = [DemoDevice(**device) for device in document["devices"]]
    asyncio.run(_run_until_stopped(url=arguments.url, fleet=fleet, tokens=document["tokens"], rate=arguments.rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
