"""User tokens: all invalid forms, each of which python-jose alone would accept or fail on."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jose import jwk

from services.ui_iot.auth.key_set import KeySet
from services.ui_iot.auth.principal import Grant, Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.trust import LONGEST_TOKEN_BYTES, Trust
from tests.support.api_client import EC, ISSUER, RSA, SigningKey, claims, ec_key, rsa_key, sign, token
from tests.support.stepped_clock import SteppedClock

KEYS = KeySet.from_document({"keys": [RSA.public(), EC.public()]})

NOW = time.time()


def check(text: str, keys: KeySet = KEYS) -> Principal | Refusal:
    return TokenVerifier(Trust(ISSUER)).verify(text, keys)


def reason(text: str, keys: KeySet = KEYS) -> str | None:
    result = check(text, keys)
    return result.reason if isinstance(result, Refusal) else None


def encode(value: Any) -> str:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("key", [EC, RSA], ids=["ES256", "RS256"])
def test_a_good_token_identifies_its_user(key: SigningKey) -> None:
    payload = claims()
    result = check(sign(payload, key=key))
    assert isinstance(result, Principal)
    assert (result.tenant_id, result.role, result.grant) == ("acme", "admin", Grant(payload["iat"]))
    assert (result.actor.type, result.actor.id, result.actor.name) == ("user", "alice", "Alice")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": int(NOW) - 1}, "invalid_claims"),  # ends before it begins
        ({"iat": int(NOW) - 900, "exp": int(NOW) - 1}, "expired"),
        ({"exp": None}, "invalid_claims"),
        ({"exp": str(int(NOW) + 600)}, "invalid_claims"),
        ({"exp": NOW + 600.5}, None),
        ({"exp": NOW - 0.5, "iat": NOW - 900.25}, "expired"),
        ({"iat": NOW - 0.5, "nbf": NOW - 0.5}, None),
        ({"exp": NOW + 600, "iat": NOW + 600.5}, "invalid_claims"),
        ({"nbf": NOW + 7200.5}, "invalid_claims"),
        ({"exp": 2**53}, "invalid_claims"),
        ({"exp": 2**53 + 2}, "invalid_claims"),
        ({"exp": 1e300}, "invalid_claims"),
        ({"iat": -0.5}, "invalid_claims"),
        ({"nbf": True}, "invalid_claims"),
        ({"iat": str(NOW)}, "invalid_claims"),
        ({"exp": True}, "invalid_claims"),
        ({"exp": 10**30}, "invalid_claims"),
        ({"iat": None}, "invalid_claims"),
        ({"iat": int(NOW) + 7200, "exp": int(NOW) + 7800}, "invalid_claims"),
        ({"iat": int(NOW) + 30}, None),  # within the leeway
        ({"nbf": int(NOW) + 7200}, "invalid_claims"),
        ({"nbf": "soon"}, "invalid_claims"),
        ({"nbf": int(NOW)}, None),
        ({"sub": None}, "invalid_claims"),
        ({"sub": ""}, "invalid_claims"),
        ({"sub": 7}, "invalid_claims"),
        ({"sub": "a" * 256}, "invalid_claims"),
        ({"sub": "two\nlines"}, "invalid_claims"),
        ({"aud": None}, "invalid_claims"),
        ({"aud": "other"}, "invalid_claims"),
        ({"aud": []}, "invalid_claims"),
        ({"aud": ["other"]}, "invalid_claims"),
        ({"aud": ["other", "pulse"]}, None),
        ({"aud": {"pulse": 1}}, "invalid_claims"),
        ({"iss": None}, "invalid_claims"),
        ({"iss": ISSUER + "/"}, "invalid_claims"),
        ({"iss": [ISSUER]}, "invalid_claims"),
        ({"tenant_id": None}, "invalid_claims"),
        ({"tenant_id": "Acme"}, "invalid_claims"),
        ({"tenant_id": "acme' or true"}, "invalid_claims"),
        ({"tenant_id": "a" * 64}, "invalid_claims"),
        ({"tenant_id": "acme\n"}, "invalid_claims"),
        ({"tenant_id": ["acme"]}, None),
        ({"tenant_id": ["acme", "other"]}, "invalid_claims"),
        ({"tenant_id": []}, "invalid_claims"),
        ({"tenant_id": {"acme": 1}}, "invalid_claims"),
        ({"role": None}, "invalid_claims"),
        ({"role": "root"}, "invalid_claims"),
        ({"role": "device"}, "invalid_claims"),
        ({"role": ["admin"]}, None),
        ({"role": ["admin", 7]}, "invalid_claims"),
        ({"role": [["admin"]]}, "invalid_claims"),
        ({"role": {"admin": True}}, "invalid_claims"),
        ({"role": "admin viewer"}, "invalid_claims"),
        ({"name": None}, None),
        ({"name": 7}, None),
    ],
)
def test_claims_are_required_and_typed(changes: dict[str, Any], expected: str | None) -> None:
    """The clock is fixed, so that the duration of earlier tests does not matter."""
    text = token(**{"iat": int(NOW), "exp": int(NOW) + 600, **changes})
    result = TokenVerifier(Trust(ISSUER), clock=lambda: NOW).verify(text, KEYS)
    assert (result.reason if isinstance(result, Refusal) else None) == expected


def test_an_expired_token_still_identifies_its_user() -> None:
    """The signature is valid, so the tenant may see in its audit trail whose token expired."""
    result = check(token(iat=1000, exp=2000))
    assert isinstance(result, Refusal)
    assert (result.reason, result.tenant_id) == ("expired", "acme")
    assert result.actor is not None
    assert result.actor.id == "alice"


def test_nothing_unproven_is_believed_of_a_bad_token() -> None:
    stranger = sign(claims(), key=SigningKey(EC.kid, "ES256", ec_key().pem))
    result = check(stranger)
    assert isinstance(result, Refusal)
    assert (result.reason, result.tenant_id, result.actor) == ("invalid_token", None, None)


def hmac_token(secret: bytes, algorithm: str, kid: str) -> str:
    digests: dict[str, Callable[..., Any]] = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    signed = f"{encode({'alg': algorithm, 'kid': kid})}.{encode(claims())}"
    return f"{signed}.{encode(hmac.new(secret, signed.encode(), digests[algorithm]).digest())}"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("encoding", ["PEM", "DER"])
def test_a_public_key_is_no_shared_secret(algorithm: str, encoding: str) -> None:
    """CVE-2024-33663 and CVE-2026-85394: with the public key as HMAC secret, anyone could sign as the issuer."""
    key = serialization.load_pem_private_key(RSA.pem.encode(), None).public_key()
    secret = key.public_bytes(
        getattr(serialization.Encoding, encoding), serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert reason(hmac_token(secret, algorithm, RSA.kid)) == "invalid_token"


def test_an_oct_key_in_the_key_set_signs_nothing() -> None:
    secret = b"0" * 32
    keys = KeySet.from_document({"keys": [{"kty": "oct", "kid": "shared", "k": encode(secret), "alg": "HS256"}]})
    assert len(keys) == 0
    assert reason(hmac_token(secret, "HS256", "shared"), keys) == "invalid_token"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "RS512", "ES512", "PS512", "EdDSA", "dir", "A128KW", None, 7, ["RS256"]]
)
def test_algorithms_are_a_closed_list(algorithm: object) -> None:
    header = {"alg": algorithm, "kid": EC.kid}
    assert reason(f"{encode(header)}.{encode(claims())}.{encode(b'sig')}") == "invalid_token"
    assert reason(f"{encode(header)}.{encode(claims())}.") == "invalid_token"


def test_the_algorithm_must_fit_the_key() -> None:
    """A key is selected by its id and algorithm together, so a mixed key set is unambiguous."""
    for key, other in ((EC, RSA), (RSA, EC)):
        forged = sign(claims(), key=key, headers={"kid": other.kid})
        assert reason(forged) == "unknown_key"
    assert reason(sign(claims(), key=RSA)) is None
    assert reason(sign(claims(), key=EC)) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A128GCM"},
        {"typ": "JWE"},
        {"typ": "dpop+jwt"},
        {"typ": 7},
        {"kid": 7},
        {"kid": ["ec-1"]},
    ],
)
def test_header_extensions_are_refused(headers: dict[str, Any]) -> None:
    assert reason(sign(claims(), headers=headers)) == "invalid_token"


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_usual_types_are_taken(kind: str) -> None:
    assert reason(sign(claims(), headers={"typ": kind})) is None


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_token_brings_no_key_of_its_own(member: str) -> None:
    own = ec_key("mine")
    values = {"jwk": own.public(), "jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/", "x5c": ["MIIB"]}
    assert reason(sign(claims(), key=own, headers={member: values[member]})) == "unknown_key"


def test_a_token_without_key_id_needs_an_only_key() -> None:
    """With two matching keys, the token would choose."""
    nameless = sign(claims(), headers={"kid": None})
    header = orjson.loads(base64.urlsafe_b64decode(nameless.split(".")[0] + "=="))
    assert header["kid"] is None
    assert reason(nameless) is None
    two = KeySet.from_document({"keys": [EC.public(), ec_key("ec-2").public()]})
    assert reason(nameless, two) == "unknown_key"


def test_small_rsa_keys_are_left_out() -> None:
    small = rsa_key("small", bits=1024)
    keys = KeySet.from_document({"keys": [small.public(), EC.public()]})
    assert len(keys) == 1
    assert reason(sign(claims(), key=small), keys) == "unknown_key"


@pytest.mark.parametrize(
    "entry",
    [
        {},
        7,
        "text",
        None,
        {"kty": "EC"},
        {"kty": ["EC"]},
        {**EC.public(), "use": "enc"},
        {**EC.public(), "alg": "ES384"},
        {**EC.public(), "crv": "P-384"},
        {**EC.public(), "crv": "secp256k1"},
        {**EC.public(), "x": "AAAA"},
        {**EC.public(), "x": 7},
        {**EC.public(), "y": EC.public()["x"]},
        {**EC.public(), "kid": 7},
        {**EC.public(), "kid": ["a"]},
        {**EC.public(), "key_ops": ["sign"]},
        {**EC.public(), "key_ops": "verify"},
        {**RSA.public(), "n": ""},
        {**RSA.public(), "n": "!!!"},
        {**RSA.public(), "e": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "ed"},
    ],
)
def test_a_malformed_key_costs_the_others_nothing(entry: Any) -> None:
    """Issuers publish keys for other purposes in the same set."""
    keys = KeySet.from_document({"keys": [entry, RSA.public()]})
    assert len(keys) == 1
    assert reason(sign(claims(), key=RSA), keys) is None


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": None}, "keys", 7])
def test_what_is_no_key_set_is_an_error(document: object) -> None:
    with pytest.raises(ValueError, match="JWKS"):
        KeySet.from_document(document)


def test_a_leaked_private_key_is_used_as_a_public_one() -> None:
    """The private part is neither used nor shown."""
    private = {**jwk.construct(RSA.pem, "RS256").to_dict(), "kid": RSA.kid}
    assert "d" in private
    keys = KeySet.from_document({"keys": [private]})
    found = keys.find(RSA.kid, "RS256")
    assert found is not None
    assert not hasattr(found.prepared_key, "private_numbers")
    assert reason(sign(claims(), key=RSA), keys) is None


GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        GOOD + ".",
        GOOD + "\n",
        " " + GOOD,
        GOOD + ".x.y",
        f"{HEAD}.{BODY}",
        f"{HEAD}..{SIGNATURE}",
        f"{HEAD}.{BODY}.",
        f"{HEAD}.{BODY}.{SIGNATURE[:-4]}",
        f"{HEAD}.{BODY}.{'A' * 86}",
        f"{HEAD}.{BODY}.{encode(bytes(64))}",
        f"{HEAD}.{BODY}.{encode(bytes([255]) * 64)}",
        f"{HEAD}.{encode(claims(role='viewer'))}.{SIGNATURE}",
        f"{encode([])}.{BODY}.{SIGNATURE}",
        f"{encode(b'not json')}.{BODY}.{SIGNATURE}",
        f"{encode({'alg': 'ES256', 'kid': 'ec-1', 'x': 'é'})}.{BODY}.{SIGNATURE}",
        f"{HEAD}.{BODY}.é",
        "eyJhbGciOiJFUzI1NiJ9\u0000.e30.AA",
        "\ud800" * 3,
        "a" * LONGEST_TOKEN_BYTES,
        "a." * 4000,
    ],
)
def test_what_is_no_token_is_refused_without_a_crash(text: str) -> None:
    assert reason(text) == "invalid_token"


def test_a_payload_that_is_no_object_is_refused() -> None:
    for payload in (b"[]", b'"text"', b"7", b"null", b"not json", b"{}", b"\xff"):
        assert reason(sign(payload)) in ("invalid_token", "invalid_claims")


def test_a_der_signature_is_not_taken_for_a_raw_one() -> None:
    key = serialization.load_pem_private_key(EC.pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    der = key.sign(f"{HEAD}.{BODY}".encode(), ec.ECDSA(hashes.SHA256()))
    assert reason(f"{HEAD}.{BODY}.{encode(der)}") == "invalid_token"


def test_size_is_bounded_also_when_the_signature_is_right() -> None:
    result = check(token(padding="x" * LONGEST_TOKEN_BYTES))
    assert isinstance(result, Refusal)
    assert (result.reason, result.detail) == ("token_too_large", "The token is too large: it may have 8192 bytes.")
    larger = TokenVerifier(Trust(ISSUER, max_token_bytes=16_384))
    assert isinstance(larger.verify(token(padding="x" * 9000), KEYS), Principal)
    assert reason(token(padding="x" * 4000)) is None


@given(st.text(max_size=200))
def test_no_text_makes_the_check_raise(text: str) -> None:
    assert reason(text) == "invalid_token"


NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
CLAIMS = st.sampled_from(["exp", "iat", "nbf", "aud", "iss", "sub", "tenant_id", "role"])


@given(st.dictionaries(CLAIMS, JSON, min_size=1))
def test_no_claim_makes_the_check_raise(changes: dict[str, Any]) -> None:
    """Every value gives one of the known answers."""
    payload = orjson.dumps({**claims(), **changes}, option=orjson.OPT_NON_STR_KEYS)
    assert reason(sign(payload)) in (None, "invalid_claims", "expired")


def test_a_verified_token_is_remembered_until_it_expires() -> None:
    clock = SteppedClock(time.time())
    verifier = TokenVerifier(Trust(ISSUER), clock=clock)
    text = token()
    assert verifier.remembered(text, KEYS) is None
    first = verifier.verify(text, KEYS)
    assert verifier.remembered(text, KEYS) is first
    assert verifier.verify(text, KEYS) is first
    clock.now += 601
    assert verifier.remembered(text, KEYS) is None
    result = verifier.verify(text, KEYS)
    assert isinstance(result, Refusal)
    assert result.reason == "expired"


def test_new_keys_make_every_token_prove_itself_again() -> None:
    """Cached tokens of a revoked key must be verified again."""
    verifier = TokenVerifier(Trust(ISSUER))
    text = token()
    assert isinstance(verifier.verify(text, KEYS), Principal)
    revoked = KeySet.from_document({"keys": [RSA.public()]})
    assert verifier.remembered(text, revoked) is None
    result = verifier.verify(text, revoked)
    assert isinstance(result, Refusal)
    assert result.reason == "unknown_key"


def test_refused_tokens_are_not_remembered_and_memory_is_bounded() -> None:
    verifier = TokenVerifier(Trust(ISSUER), remembered_tokens=3)
    texts = [token(sub=f"user-{number}") for number in range(5)]
    for text in texts:
        verifier.verify(text, KEYS)
    assert [verifier.remembered(text, KEYS) is not None for text in texts] == [False, False, True, True, True]
    verifier.verify(token(role="root"), KEYS)
    assert verifier.remembered(texts[2], KEYS) is not None


def test_the_memory_holds_no_token() -> None:
    """The cache holds digests only, so a memory dump reveals no session."""
    verifier = TokenVerifier(Trust(ISSUER))
    text = token()
    verifier.verify(text, KEYS)
    assert text not in repr(vars(verifier))
    assert SIGNATURE not in repr(vars(verifier))
