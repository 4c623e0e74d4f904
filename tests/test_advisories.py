"""The check of the locks against an advisory database in the OSV format."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.advisories import LOCKS, ROOT, accepted, is_affected, main, read_lock


def advisory(name: str, *events: dict[str, str], **members: Any) -> dict[str, Any]:
    """Return an advisory about a package of PyPI."""
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": f"PYSEC-{name}", "summary": "bad\x1b[31m\nnews", "affected": [affected], **members}


@pytest.mark.parametrize(
    ("version", "events", "expected"),
    [
        ("1.0", [{"introduced": "0"}], True),
        ("1.0", [{"introduced": "0"}, {"fixed": "1.0"}], False),
        ("1.0rc1", [{"introduced": "0"}, {"fixed": "1.0"}], True),
        ("1.0.post1", [{"introduced": "0"}, {"fixed": "1.0"}], False),
        ("1.10", [{"introduced": "1.9"}, {"fixed": "1.11"}], True),
        ("1.8", [{"introduced": "1.9"}, {"fixed": "1.11"}], False),
        ("2.5", [{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "2.0"}, {"fixed": "3.0"}], True),
        ("1.5", [{"introduced": "2.0"}, {"fixed": "3.0"}, {"introduced": "0"}, {"fixed": "1.0"}], False),
        ("1.0", [{"introduced": "0"}, {"last_affected": "1.0"}], True),
        ("1.0.1", [{"introduced": "0"}, {"last_affected": "1.0"}], False),
        ("1.0", [{"introduced": "not a version"}], True),
        ("1.0", [{"limit": "2.0"}], False),
        ("1.0", [], False),
    ],
)
def test_ranges_are_those_of_the_schema(version: str, events: list[dict[str, str]], expected: bool) -> None:
    assert is_affected(version, {"ranges": [{"type": "ECOSYSTEM", "events": events}]}) is expected
    # Commits say nothing about versions.
    assert not is_affected(version, {"ranges": [{"type": "GIT", "events": events}]})
    assert is_affected(version, {"versions": ["??", version], "ranges": []})


def test_an_affected_lock_fails_however_the_database_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text('my-package[x]==1.5 ; python_version < "4" \\\n    --hash=sha256:00\nother==1\n')
    bad = advisory("My_Package", {"introduced": "1"}, {"fixed": "2"}, aliases=["CVE-1"])
    harmless = [
        advisory("other", {"introduced": "2"}),
        advisory("my-package", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z"),
        {"id": "GO-1", "affected": [{"package": {"ecosystem": "Go", "name": "other"}, "versions": ["1"]}]},
    ]
    stored = {
        "one.json": json.dumps(bad),
        "list.json": json.dumps([*harmless, bad]),
        "vulns.json": json.dumps({"vulns": [bad]}),
        "lines.jsonl": "\n".join(json.dumps(one) for one in (*harmless, bad)),
    }
    places = []
    for name, text in stored.items():
        places.append(tmp_path / name)
        places[-1].write_text(text)
    (tmp_path / "directory" / "deep").mkdir(parents=True)
    (tmp_path / "directory" / "deep" / "bad.json").write_text(json.dumps(bad))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("bad.json", json.dumps(bad))
        archive.writestr("README", "no advisory")
    for place in (*places, tmp_path / "directory", tmp_path / "all.zip"):
        assert main([str(place), str(lock)]) == 1, place
        said = capsys.readouterr().out
        assert "some.lock: my-package 1.5: CVE-1, PYSEC-My_Package: bad\ufffd[31m news (fixed in 2)\n" in said
    good = tmp_path / "good.json"
    good.write_text(json.dumps(harmless))
    assert main([str(good), str(lock)]) == 0


def test_what_cannot_be_read_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.json"
    good.write_text(json.dumps(advisory("x", {"introduced": "0"})))
    empty_lock = tmp_path / "empty.lock"
    empty_lock.write_text("# nothing\n")
    for number, text in enumerate(("", "{", "[]", "{}", '"x"', '[{"id": 1}]', '{"vulns": 1}', '{"id": "a"}')):
        bad = tmp_path / f"{number}.json"
        bad.write_text(text)
        assert main([str(bad)]) == 2, text
    assert main([str(tmp_path / "none.json")]) == 2
    assert main([str(good), str(empty_lock)]) == 2
    assert main([str(good), str(tmp_path / "none.lock")]) == 2
    assert main([]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_accepted_advisory_is_shown_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each accepted advisory must affect a locked package, so that the list does not outlive its cause."""
    [known] = accepted(ROOT / "pyproject.toml")
    database = tmp_path / "database.json"
    database.write_text(json.dumps(advisory("ecdsa", {"introduced": "0"}, aliases=[known])))
    assert main([str(database)]) == 0
    assert "ACCEPTED: ecdsa is python-jose's fallback" in capsys.readouterr().out
    for name in LOCKS:
        assert len(read_lock(ROOT / name)) > 50
        assert "ecdsa" in read_lock(ROOT / name)
