"""A clock that moves only when the test sets it."""


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the current time of the clock."""
        return self.now
