"""A clock that advances only when the test sets it."""

from dataclasses import dataclass


@dataclass(slots=True)
class SteppedClock:
    """Seconds since any moment. Code under test calls it; the test sets or adds to `now`."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time that the test set."""
        return self.now
