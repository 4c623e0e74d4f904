"""What is stored in place of an event that the database refuses."""

from datetime import datetime
from uuid import UUID

from services.shared import tracing
from services.shared.audit_writer.cleaning import LONGEST_NAME
from services.shared.audit_writer.event import AuditEvent
from services.shared.audit_writer.line import Line, make_line, read_line

_EVENT_TYPE = "audit.quarantined"


def make_quarantine_line(line: Line, error: BaseException) -> Line:
    """A row with the same id, time and trace, and of the event nothing else but an ASCII rendering in its details."""
    event = read_line(line)
    service = event["source_service"] or ""
    rendering = {name: ascii(value)[:LONGEST_NAME] for name, value in event.items() if value is not None}
    return make_line(
        AuditEvent(
            event_type=_EVENT_TYPE,
            severity="error",
            message="an event could not be stored as it was",
            details={"error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None), "event": rendering},
            actor_type="service",
            actor_id=service,
            trace_id=tracing.parse_trace_id(event["trace_id"]),
            timestamp=datetime.fromisoformat(event["timestamp"] or ""),
            event_id=UUID(event["event_id"]),
        ),
        service,
    )


def is_quarantine(line: Line) -> bool:
    """Whether make_quarantine_line made it."""
    return line.startswith(_EVENT_TYPE)
