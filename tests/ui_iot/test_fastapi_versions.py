"""Code that uses FastAPI's internals works with the oldest version allowed. All other tests run on the newest."""

import os

import pytest

from tests.fastapi_versions import check, oldest


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_oldest_fastapi_allowed_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed from the package index, so the test runs only on request."""
    if os.environ.get("PULSE_TEST_REQUIRE") != "all":
        pytest.skip("PULSE_TEST_REQUIRE is not all: the oldest FastAPI is NOT tested; python -m tests.fastapi_versions")
    for size, value in (("HTTP_REQUESTS", "100"), ("HOSTILE_REQUESTS", "1000"), ("GENERATED_APPS", "20")):
        monkeypatch.setenv(f"PULSE_TEST_{size}", value)
    assert check(oldest()) is None
