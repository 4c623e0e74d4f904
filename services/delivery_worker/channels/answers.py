"""Texts that chat services answer with, as far as they say more than the status."""

import orjson


def is_failure(text: str) -> bool:
    """Return whether the text of a 2xx answer says that the message was not taken: an error, or a page for people."""
    if text.startswith("<"):
        return True
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        lowered = text.lower()
        return any(word in lowered for word in ("error", "fail", "invalid", "denied"))
    if not isinstance(parsed, dict):
        return False
    return (
        bool(parsed.get("error") or parsed.get("errors")) or parsed.get("ok") is False or parsed.get("success") is False
    )
