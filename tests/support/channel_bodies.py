"""Valid configurations of every kind of channel."""

import base64
from typing import Any

from services.delivery_worker.channels import pagerduty, slack, teams, webhook
from services.delivery_worker.channels.config import ChannelConfig

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmn").decode()


ROUTING_KEY = "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY32"


def parse(model: type[ChannelConfig], config: dict[str, Any], *, allow_private: bool = False) -> Any:
    return model.model_validate(config, context={"allow_private": allow_private})


WEBHOOK = parse(webhook.Config, {"url": "https://hooks.example/in", "secret": SECRET})


SLACK = parse(slack.Config, {"url": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX"})


TEAMS = parse(teams.Config, {"url": "https://example.webhook.office.com/workflows/0123456789abcdef?sig=verysecret"})


PAGERDUTY = parse(pagerduty.Config, {"routing_key": ROUTING_KEY})
