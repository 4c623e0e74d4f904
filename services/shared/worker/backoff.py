"""How long to wait before the next attempt."""

import random

LONGEST_BACKOFF_SECONDS = 30.0


def backoff_seconds(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling from 0.2 to 30, each between half and whole."""
    return min(LONGEST_BACKOFF_SECONDS, 0.1 * 2.0 ** min(failures, 16)) * (0.5 + random.random() / 2)
