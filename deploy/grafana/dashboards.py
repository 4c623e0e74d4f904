"""Writes the dashboards: python -m deploy.grafana.dashboards."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.audit_and_auth import audit_and_auth
from deploy.grafana.database import database
from deploy.grafana.overview import overview
from deploy.grafana.pipeline import pipeline

PLACE = Path(__file__).parent


def render() -> dict[str, str]:
    """Return the text of each file by its name."""
    made = {
        "overview.json": overview(),
        "pipeline.json": pipeline(),
        "audit_and_auth.json": audit_and_auth(),
        "database.json": database(),
    }
    return {
        name: JSONEncoder(sort_keys=True, indent=2).encode(dashboard.build()) + "\n" for name, dashboard in made.items()
    }


def main() -> None:
    """Write every file."""
    for name, text in render().items():
        (PLACE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
