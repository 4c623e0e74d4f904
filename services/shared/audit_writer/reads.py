"""Successful reads that a caller repeats become one row a window with their exact number.

A page that polls would otherwise fill the trail, which keeps its rows for years. The first read of a window is durable
before it is answered. The others are in a row at the window's end; what was read most often stands in it by itself.
"""

from collections.abc import Iterator
from dataclasses import replace

import orjson

from services.shared.audit_writer.event import AuditEvent, new_event_id
from services.shared.audit_writer.windows import Tally, Windows, address_group

# What is true of one request only.
_PARTICULAR = ("span_id", "parent_span_id", "parent_trace_id", "path", "filter", "events")


class Reads(Windows):
    """Successful reads, by kind, caller and address. An address that is new to a caller therefore shows at once."""

    def admits(self, event: AuditEvent, kind: str) -> bool:
        """Return whether it is to be a row of its own; when not, it is counted."""
        caller = (event.tenant_id, event.actor_type, event.actor_id, event.details.get("role"))
        return self._admits((event.event_type, kind, *caller, address_group(event)), _subject(event), event)

    def _aggregate(self, tallies: dict[str | None, Tally]) -> Iterator[tuple[AuditEvent, int]]:
        whole = Tally(next(iter(tallies.values())).example)
        for tally in tallies.values():
            whole.add(tally)
        most = sorted(tallies.items(), key=lambda item: -item[1].count)
        details = {
            **{name: value for name, value in whole.example.details.items() if name not in _PARTICULAR},
            "aggregated": True,
            "count": whole.count,
            "first_at": whole.example.timestamp.isoformat(),
            "last_at": whole.last_at.isoformat(),
            "reads": [{"read": subject or "others", "count": tally.count} for subject, tally in most],
        }
        event = replace(
            whole.example,
            message=f"{whole.count} more times: {whole.example.message}",
            trace_id=None,
            duration_ms=None,
            details=details,
            timestamp=whole.last_at,
            event_id=new_event_id(),
        )
        yield event, whole.count


def _subject(event: AuditEvent) -> str:
    """Return what was read: the path of a request, or the filter of a look at the audit trail."""
    path = event.details.get("path")
    return str(path) if path is not None else orjson.dumps(event.details.get("filter"), default=str).decode()[:500]
