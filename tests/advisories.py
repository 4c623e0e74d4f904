"""Check locks against an advisory database: `python -m tests.advisories DATABASE [LOCK …]`.

DATABASE holds advisories in the OSV format: one JSON document, a list, {"vulns": [...]}, JSON Lines, a directory of
JSON files, or a zip archive with such files. Nothing is downloaded.

Exits with 1 when an advisory affects a locked version and [tool.pulse.accepted-advisories] of pyproject.toml does not
name it, with 2 when the database or a lock cannot be used.
"""

import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from services.shared.visible_text import terminal_text

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
ECOSYSTEM = "PyPI"
Advisory = Mapping[str, Any]


class Unusable(Exception):
    """The database or a lock cannot be read, so the result is unknown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A locked version that an advisory affects. fixed: versions that are no longer affected."""

    package: str
    version: str
    advisory: Advisory
    fixed: Sequence[str]

    @property
    def names(self) -> set[str]:
        """Id and aliases of the advisory."""
        return {str(self.advisory["id"]), *map(str, self.advisory.get("aliases") or ())}

    def __str__(self) -> str:
        summary = str(self.advisory.get("summary") or self.advisory.get("details") or "no summary")
        mended = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no fixed version"
        line = f"{self.package} {self.version}: {', '.join(sorted(self.names))}: {summary[:200]} ({mended})"
        return terminal_text(" ".join(line.split()))


def read_database(place: Path) -> list[Advisory]:
    """Return the advisories about Python packages. Raise Unusable if they cannot be read or there are none."""
    try:
        documents = [found for text in _texts(place) for found in _advisories(text)]
    except (OSError, ValueError, zipfile.BadZipFile, Unusable) as error:
        raise Unusable(f"{place}: {error}") from error
    python = [one for one in documents if any(_is_python(affected) for affected in one.get("affected") or ())]
    if not python:
        raise Unusable(f"{place}: no advisory about a package of {ECOSYSTEM}")
    return [one for one in python if not one.get("withdrawn")]


def _texts(place: Path) -> Iterator[str]:
    if place.is_dir():
        for file in sorted(place.rglob("*.json")):
            yield file.read_text(encoding="utf-8")
    elif zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".json"):
                    yield archive.read(name).decode()
    else:
        yield place.read_text(encoding="utf-8")


def _advisories(text: str) -> Iterator[Advisory]:
    try:
        documents = [json.loads(text)]
    except ValueError:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    for document in documents:
        found = document.get("vulns", [document]) if isinstance(document, dict) else document
        for one in found if isinstance(found, list) else [None]:
            if not (isinstance(one, dict) and isinstance(one.get("id"), str)):
                raise Unusable("it holds what is no advisory")
            yield one


def _is_python(affected: Mapping[str, Any]) -> bool:
    package = affected.get("package") or {}
    return str(package.get("ecosystem", "")).partition(":")[0] == ECOSYSTEM and bool(package.get("name"))


def read_lock(lock: Path) -> dict[str, str]:
    """Return the locked versions by normalized name, for any platform. Raise Unusable."""
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{lock}: {error}") from error
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.MULTILINE))
    if not pinned:
        raise Unusable(f"{lock}: no package is locked")
    return {canonicalize_name(name): version for name, version in pinned.items()}


def find_affected(locked: Mapping[str, str], advisories: Iterable[Advisory]) -> list[Finding]:
    """Return the locked versions that advisories affect, by package."""
    found = []
    for advisory in advisories:
        for affected in advisory.get("affected") or ():
            name = canonicalize_name(str((affected.get("package") or {}).get("name", "")))
            if not _is_python(affected) or name not in locked or not is_affected(locked[name], affected):
                continue
            fixed = [
                str(event["fixed"])
                for span in affected.get("ranges") or ()
                if span.get("type") == "ECOSYSTEM"
                for event in span.get("events") or ()
                if "fixed" in event
            ]
            found.append(Finding(name, locked[name], advisory, fixed))
    return sorted(found, key=lambda finding: (finding.package, str(finding.advisory["id"])))


def is_affected(version: str, affected: Mapping[str, Any]) -> bool:
    """Return whether the version is listed or lies in a range, as the OSV schema defines its evaluation."""
    if _is_listed(version, affected.get("versions") or ()):
        return True
    spans = [span for span in affected.get("ranges") or () if span.get("type") == "ECOSYSTEM"]
    return any(_lies_within(Version(version), span.get("events") or ()) for span in spans)


def _is_listed(version: str, versions: Iterable[str]) -> bool:
    for listed in versions:
        try:
            if Version(listed) == Version(version):
                return True
        except InvalidVersion:
            continue
    return False


def _lies_within(version: Version, events: Iterable[Mapping[str, str]]) -> bool:
    """Walk through the events in the order of their versions; assume the worst for an unreadable version."""
    inside = False
    for at, kind in sorted(_events(events), key=lambda event: event[0]):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _events(events: Iterable[Mapping[str, str]]) -> Iterator[tuple[Version, str]]:
    for event in events:
        for kind, text in event.items():
            if kind not in ("introduced", "fixed", "last_affected"):
                continue
            try:
                yield Version(text), kind
            except InvalidVersion:
                if kind == "introduced":
                    yield Version("0"), kind


def accepted(project: Path) -> dict[str, str]:
    """Return the accepted advisories of pyproject.toml with their reasons."""
    tables = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["pulse"]
    return {str(name): str(reason) for name, reason in tables.get("accepted-advisories", {}).items()}


def main(arguments: Sequence[str]) -> int:
    """Check the locks, print what is affected and return the exit status."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        advisories = read_database(Path(arguments[0]))
        locks = [Path(name) for name in arguments[1:]] or [ROOT / name for name in LOCKS]
        found = {lock: find_affected(read_lock(lock), advisories) for lock in locks}
    except Unusable as error:
        print(terminal_text(f"advisories: {error}"), file=sys.stderr)
        return 2
    reasons = accepted(ROOT / "pyproject.toml")
    status = 0
    for lock, findings in found.items():
        for finding in findings:
            reason = next((reasons[name] for name in sorted(finding.names) if name in reasons), None)
            status = status if reason else 1
            print(f"{lock.name}: {finding}" + (terminal_text(f" ACCEPTED: {reason}") if reason else ""))
    print(
        f"{len(advisories)} advisories, {sum(map(len, found.values()))} affect {', '.join(lock.name for lock in locks)}"
    )
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
