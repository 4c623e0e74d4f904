"""Refused requests beyond a rate become one row a window with their exact number.

So an attacker can neither fill the disk nor hide: the first of a window stand as rows of their own, the rest is
counted, by account for those tried most, or whoever fills a window with noise could try one account unseen.
"""

from collections.abc import Iterator
from dataclasses import replace

from services.shared.audit_writer.event import AuditEvent, new_event_id
from services.shared.audit_writer.windows import Tally, Windows, address_group


class Flood(Windows):
    """Refused requests, by address, reason, and of a rate_limited refusal its cause."""

    buffer = "auth_failures"

    def admits(self, event: AuditEvent) -> bool:
        """Return whether it is to be a row of its own; when not, it is counted."""
        details = event.details
        key = (address_group(event), details.get("reason"), details.get("cause"))
        return self._admits(key, details.get("account"), event)

    def _aggregate(self, tallies: dict[str | None, Tally]) -> Iterator[tuple[AuditEvent, int]]:
        for account, tally in tallies.items():
            yield _aggregate(account, tally), tally.count


def _aggregate(account: str | None, tally: Tally) -> AuditEvent:
    reason = tally.example.details.get("reason")
    details = {
        "aggregated": True,
        "count": tally.count,
        "first_at": tally.example.timestamp.isoformat(),
        "last_at": tally.last_at.isoformat(),
        "reason": reason,
    }
    # What was tried beyond the limit: audit._tries counts it by its cause.
    if "cause" in tally.example.details:
        details["cause"] = tally.example.details["cause"]
    return replace(
        tally.example,
        message=f"{tally.count} more callers turned away: {reason}",
        # Each may have been somebody else; what they have in common is where they came from, why and as whom.
        tenant_id="system",
        actor_type="anonymous",
        actor_id=None,
        actor_name=None,
        entity_type=None,
        entity_id=None,
        trace_id=None,
        duration_ms=None,
        details=details if account is None else {**details, "account": account},
        timestamp=tally.last_at,
        event_id=new_event_id(),
    )
