"""Answers of chat services that report a failure in their text."""

import orjson


def is_failure(text: str) -> bool:
    """Return whether the text of a 2xx answer reports a failure: an error, or an HTML page."""
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
