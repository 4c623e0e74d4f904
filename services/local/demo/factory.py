"""Content of the demo: a small factory whose furnace is too hot from time to time."""

from collections.abc import Sequence
from dataclasses import dataclass

TENANT_ID = "demo"
TENANT_NAME = "Demo factory"
SENSORS_PER_GATEWAY = 50
HALLS = ("north", "south", "yard")

HOT_DEVICE = "furnace-1"
"""Device that the fleet heats, with its own token."""
FREE_DEVICE = "probe-1"
"""Device for readings sent by hand, under the same rule as the furnace."""


@dataclass(frozen=True, slots=True)
class DemoDevice:
    """Device of the demo. `gateway`: the device that reports for it, None if it has its own token."""

    device_id: str
    name: str
    tags: Sequence[str] = ()
    is_gateway: bool = False
    gateway: str | None = None


def devices(count: int) -> list[DemoDevice]:
    """Return the furnace and count - 1 sensors, their gateways, and the device for readings sent by hand."""
    sensors = [
        DemoDevice(
            device_id=f"sensor-{number:03}",
            name=f"Sensor {number}",
            tags=[HALLS[number % len(HALLS)]],
            gateway=f"gateway-{(number - 1) // SENSORS_PER_GATEWAY + 1}",
        )
        for number in range(1, count)
    ]
    gateways = [
        DemoDevice(device_id=name, name=name.replace("-", " ").capitalize(), is_gateway=True)
        for name in dict.fromkeys(sensor.gateway for sensor in sensors if sensor.gateway)
    ]
    return [
        DemoDevice(device_id=HOT_DEVICE, name="Furnace 1", tags=["furnace"]),
        DemoDevice(device_id=FREE_DEVICE, name="Hand-held probe", tags=["furnace"]),
        *gateways,
        *sensors,
    ]


RULES: Sequence[dict[str, object]] = (
    {
        "name": "Furnace too hot",
        "metric": "temperature",
        "operator": ">",
        "threshold": 80.0,
        "severity": "critical",
        "tag": "furnace",
    },
    {
        "name": "Vibration stays high",
        "metric": "vibration",
        "operator": ">=",
        "threshold": 8.0,
        "for_seconds": 30,
        "severity": "error",
    },
    {
        "name": "Battery low",
        "metric": "battery",
        "operator": "<",
        "threshold": 15.0,
        "severity": "warning",
    },
)

CHANNEL_NAME = "Local sink"
ROUTE_NAME = "Everything from warning"
ROUTE_SEVERITY = "warning"
