"""How long a revocation of user tokens must last."""

from services.ui_iot.auth.claims import LEEWAY_SECONDS

DEFAULT_DAYS = 30


def lasting_seconds(*, days: int | None, ends_by_itself: bool, max_token_seconds: int) -> float:
    """Return the seconds from now until a revocation may be removed.

    ends_by_itself: it names tokens that were issued before now, none of which is valid longer than max_token_seconds.
    """
    if days is not None:
        return days * 86_400.0
    # Both clocks may differ by the leeway, at the issue and at the check.
    return max_token_seconds + 2.0 * LEEWAY_SECONDS if ends_by_itself else DEFAULT_DAYS * 86_400.0
