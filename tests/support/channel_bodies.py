"""Valid configurations of every kind of channel."""

import base64
from typing import Any

from services.shared.channels import ChannelConfig, PagerDutyConfig, UrlConfig, WebhookConfig

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmn").decode()


ROUTING_KEY = "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY32"


def parse(model: type[ChannelConfig], config: dict[str, Any], *, allow_private: bool = False) -> Any:
    return model.model_validate(config, context={"allow_private": allow_private})


WEBHOOK = parse(WebhookConfig, {"url": "https://hooks.example/in", "secret": SECRET})


SLACK = parse(UrlConfig, {"url": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX"})


TEAMS = parse(UrlConfig, {"url": "https://example.webhook.office.com/workflows/0123456789abcdef?sig=verysecret"})


PAGERDUTY = parse(PagerDutyConfig, {"routing_key": ROUTING_KEY})
