"""User tokens of the local stack: what every verifier accepts, and what it must refuse."""

import time
from pathlib import Path

import orjson
import pytest
from jose import jwt
from jose.exceptions import ExpiredSignatureError

from services.cli.signing_key import AUDIENCE, ISSUER, SigningKey


def test_a_token_is_accepted_with_the_published_key(tmp_path: Path) -> None:
    """Claims, algorithm and key id are those that ui_iot asks for."""
    key = SigningKey(tmp_path / "keys")
    encoded = key.token(tenant_id="demo", role="admin", name="Ada")
    document = orjson.loads(key.jwks_file.read_bytes())
    claims = jwt.decode(encoded, document, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)
    expected = {"tenant_id": "demo", "role": "admin", "name": "Ada", "sub": "local-admin"}
    assert expected.items() <= claims.items()
    assert claims["iat"] <= time.time() < claims["exp"]
    header = jwt.get_unverified_header(encoded)
    assert (header["alg"], header["kid"]) == ("ES256", document["keys"][0]["kid"])
    assert "d" not in document["keys"][0]


def test_an_expired_token_is_expired_and_nothing_else(tmp_path: Path) -> None:
    """So that the reason in the audit trail is the one people want to see."""
    key = SigningKey(tmp_path)
    with pytest.raises(ExpiredSignatureError):
        jwt.decode(
            key.token(tenant_id="demo", role="viewer", expired=True),
            orjson.loads(key.jwks_file.read_bytes()),
            algorithms=["ES256"],
            audience=AUDIENCE,
        )


def test_the_key_stays_the_same(tmp_path: Path) -> None:
    """A token outlives a restart of the stack."""
    first = SigningKey(tmp_path)
    encoded = first.token(tenant_id="demo", role="viewer")
    before = first.jwks_file.stat()
    second = SigningKey(tmp_path)
    assert second.jwks_file.stat() == before
    jwt.decode(encoded, orjson.loads(second.jwks_file.read_bytes()), algorithms=["ES256"], audience=AUDIENCE)
