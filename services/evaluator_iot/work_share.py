"""The adaptive share of a pass's limits: it falls after failed and slow passes and rises after quick ones."""

from dataclasses import dataclass

SMALLEST_SHARE = 1 / 1024


@dataclass(slots=True)
class WorkShare:
    """The share of the limits that the next pass gets, from 1/1024 to 1."""

    slow_seconds: float
    share: float = 1.0

    def limit(self, most: int) -> int:
        """Return the share of a limit, at least 1."""
        return max(1, int(most * self.share))

    def pass_ended(self, seconds: float) -> None:
        """Halve the share after a slow pass; double it after one that took less than a quarter of that time."""
        if seconds > self.slow_seconds:
            self.share = max(SMALLEST_SHARE, self.share / 2)
        elif seconds < self.slow_seconds / 4:
            self.share = min(1.0, self.share * 2)

    def pass_failed(self) -> None:
        """Divide the share by four, because a failed pass may have timed out or run out of memory."""
        self.share = max(SMALLEST_SHARE, self.share / 4)
