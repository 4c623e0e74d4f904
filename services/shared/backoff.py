"""The pause before a retry."""

import random


def backoff_seconds(failures: int, *, first_seconds: float = 0.2, longest_seconds: float = 30.0) -> float:
    """Return the pause after so many failures in a row: doubling to longest_seconds, times a random 0.5 to 1."""
    return min(longest_seconds, first_seconds * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)
