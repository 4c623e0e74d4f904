"""Claims of many providers: tenant and role, audiences and clients, and tokens that are not access tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.settings import UiSettings
from services.ui_iot.auth.claims import Claims, read_claims
from services.ui_iot.auth.issuers import IssuerFault, load_issuers, read_issuers
from services.ui_iot.auth.jwks import Jwks
from services.ui_iot.auth.key_set import KeySet
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.trust import ABSENT, ClaimPath, Trust
from services.ui_iot.auth.user_tokens import TokensByIssuer, UserTokens
from tests.support.api_client import (
    EC,
    ISSUER,
    KeyServer,
    SigningKey,
    claims,
    ec_key,
    es384_key,
    ps256_key,
    rsa_key,
    sign,
)

URL = "postgresql://pulse_app@127.0.0.1/pulse"
NOW = 1_800_000_000
LIMITS = {"max_token_bytes": 8192, "max_token_seconds": 86_400}
TIMES = {"iat": NOW - 60, "exp": NOW + 600}


def settings(**values: Any) -> UiSettings:
    return UiSettings(database_url=URL, **values)


def trust(**values: Any) -> Trust:
    """Return the conditions that these settings make, for ISSUER unless they say otherwise."""
    [entry] = read_issuers(
        settings(**{"oidc_issuer": ISSUER, **{f"oidc_{name}": each for name, each in values.items()}})
    )
    return entry.trust(**LIMITS)


def read(payload: dict[str, Any], conditions: Trust) -> tuple[str, str] | str:
    """Return tenant and role, or the reason with its text."""
    result = read_claims({"iss": conditions.issuer, "sub": "alice", **TIMES, **payload}, trust=conditions, now=NOW)
    if isinstance(result, Claims):
        return result.user.tenant_id, result.user.role
    return f"{result.reason}: {result.detail}"


# Tokens from the providers' documentation, shortened.
AUTH0 = {
    "aud": ["https://pulse.example/api", "https://acme.eu.auth0.com/userinfo"],
    "azp": "spa-1",
    "scope": "openid profile",
    "https://pulse.example/tenant": "acme",
    "https://pulse.example/roles": ["Fleet Operator", "Billing"],
}
KEYCLOAK = {
    "aud": "account",
    "azp": "pulse-web",
    "typ": "Bearer",
    "realm_access": {"roles": ["offline_access", "pulse-admin", "default-roles-acme"]},
    "resource_access": {"pulse.web": {"roles": ["viewer"]}, "account": {"roles": ["manage-account"]}},
    "organization": ["acme"],
}
ENTRA = {
    "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
    "azp": "99e9ba24-7e2c-4b5c-9c4b-fbd8d2ad8d9d",
    "tid": "72f988bf-86f1-41ef-91ab-2d7cd011db47",
    "roles": ["Pulse.Auditor", "Pulse.Viewer"],
    "scp": "access_as_user",
    "ver": "2.0",
}
COGNITO = {
    "client_id": "1example23456789",
    "token_use": "access",
    "scope": "openid pulse/tenant",
    "cognito:groups": ["pulse-operators", "staff"],
    "custom:tenant": "acme",
}
OKTA = {"aud": "api://default", "cid": "0oa1", "scp": ["openid", "pulse.admin"], "tenant": "acme", "ver": 1}
MAPPED = {"Fleet Operator": "operator", "pulse-admin": "admin", "Pulse.Auditor": "auditor", "Pulse.Viewer": "viewer"}
MAPPED |= {"pulse-operators": "operator", "pulse.admin": "admin", "access_as_user": "viewer"}


@pytest.mark.parametrize(
    ("payload", "values", "expected"),
    [
        (
            AUTH0,
            {
                "audience": "https://other.example,https://pulse.example/api",
                "tenant_claim": "https://pulse.example/tenant",
                "role_claim": "https://pulse.example/roles",
            },
            ("acme", "operator"),
        ),
        (
            KEYCLOAK,
            {
                "audience": "account",
                "client_ids": "pulse-web",
                "tenant_claim": "organization",
                "role_claim": "realm_access.roles",
            },
            ("acme", "admin"),
        ),
        (
            ENTRA,
            {"audience": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "tenant_claim": "tid", "role_claim": "roles"},
            ("72f988bf-86f1-41ef-91ab-2d7cd011db47", "auditor"),
        ),
        (
            ENTRA,
            {"audience": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "tenant_claim": "tid", "role_claim": "scp"},
            ("72f988bf-86f1-41ef-91ab-2d7cd011db47", "viewer"),
        ),
        (
            COGNITO,
            {
                "client_ids": "other, 1example23456789",
                "tenant_claim": "custom:tenant",
                "role_claim": "cognito:groups",
            },
            ("acme", "operator"),
        ),
        (OKTA, {"audience": "api://default", "tenant_claim": "tenant", "role_claim": "scp"}, ("acme", "admin")),
    ],
    ids=["auth0", "keycloak", "entra", "entra-scp", "cognito", "okta"],
)
def test_tokens_of_known_providers(payload: dict[str, Any], values: dict[str, Any], expected: tuple[str, str]) -> None:
    conditions = trust(role_map=orjson.dumps(MAPPED).decode(), **values)
    assert read(payload, conditions) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("realm_access.roles", KEYCLOAK["realm_access"]["roles"]),  # type: ignore[index]
        (r"resource_access.pulse\.web.roles", ["viewer"]),
        ('["resource_access", "pulse.web", "roles"]', ["viewer"]),
        ('["https://example.com/app", "role"]', "admin"),
        ("https://example.com/a.b/tenant", "acme"),
        ("a.b", "literal"),
        (r"a\.b", "literal"),
        ("organization", ["acme"]),
        ("realm_access.roles.0", ABSENT),
        ("realm_access.none", ABSENT),
        ("organization.acme", ABSENT),
        ("https://example.com/app.role", ABSENT),
        ("null", None),
    ],
)
def test_a_place_is_a_name_a_dotted_path_or_a_list(text: str, value: object) -> None:
    """A dotted name is first tried as a whole. A name with :// is never split."""
    payload = KEYCLOAK | {
        "https://example.com/app": {"role": "admin"},
        "https://example.com/a.b/tenant": "acme",
        "https://example": {"com/app": {"role": "wrong"}},
        "a.b": "literal",
        "a": {"b": "nested"},
        "null": None,
    }
    found = ClaimPath.parse(text).find(payload)
    assert found is ABSENT if value is ABSENT else found == value


@pytest.mark.parametrize("text", [".", "a.", ".a", "a..b", "[", "[]", "[1]", '[""]', '["a", null]', "a." * 20 + "a"])
def test_a_place_that_is_none_is_refused_at_start(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tenant", "role"):
        wrong = settings(oidc_issuer=ISSUER, **{f"oidc_{name}_claim": text})
        with pytest.raises(SystemExit) as stopped:
            load_issuers(wrong, service="ui_iot")
        assert stopped.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ui_iot: PULSE_OIDC_{name.upper()}_CLAIM: must be ")


@pytest.mark.parametrize(
    ("values", "payload", "expected"),
    [
        # Of several roles the highest counts; others are ignored.
        ({}, {"role": ["viewer", "auditor", "none"]}, "auditor"),
        ({}, {"role": ["auditor", "operator"]}, "operator"),
        ({}, {"role": ["operator", "admin", "viewer"]}, "admin"),
        # With a map only its names count.
        ({"role_map": '{"boss": "admin"}'}, {"role": "admin"}, None),
        ({"role_map": '{"boss": "admin", "worker": "viewer"}'}, {"role": ["worker", "admin"]}, "viewer"),
        ({"role_map": '{"admin": "viewer"}'}, {"role": "admin"}, "viewer"),
        ({"role_claim": "scope"}, {"scope": "openid  viewer"}, "viewer"),
        ({"role_claim": "scope"}, {"scope": "viewers"}, None),
        ({}, {"role": []}, None),
        ({}, {"role": "Admin"}, None),
        ({}, {"role": " admin"}, None),
        ({}, {"role": None}, None),
        ({}, {}, None),
    ],
)
def test_the_highest_of_the_known_roles_counts(
    values: dict[str, Any], payload: dict[str, Any], expected: str | None
) -> None:
    found = read({"aud": "pulse", "tenant_id": "acme", **payload}, trust(**values))
    assert found == ("acme", expected) if expected else str(found).startswith("invalid_claims: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1, "1800000600", [NOW], {}, True])
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_a_time_is_a_finite_number(name: str, value: object) -> None:
    found = read({"aud": "pulse", "role": "viewer", "tenant_id": "acme", name: value}, trust())
    assert found == "invalid_claims: exp and iat, and nbf if it is there, must be numbers of seconds since 1970."


@pytest.mark.parametrize(
    ("iat", "exp", "is_good"),
    [
        (NOW - 10, NOW + 3590, True),
        (NOW - 10, NOW + 3591, False),
        (NOW + 30, NOW + 3630, True),
        (NOW + 30, NOW + 3631, False),
        (NOW - 3599.5, NOW + 0.5, True),
        (NOW - 86_400, NOW + 1, False),
        (0, NOW + 1, False),
        (NOW, NOW + 10**6, False),
        (NOW, 2**53, False),
        (NOW, 10**18, False),
        (NOW, 1e300, False),
    ],
)
def test_a_token_that_lasts_too_long_is_refused(iat: float, exp: float, is_good: bool) -> None:
    """A provider whose tokens never expire must not create a session that cannot be ended."""
    conditions = replace(trust(), max_token_seconds=3600)
    found = read({"aud": "pulse", "role": "viewer", "tenant_id": "acme", "iat": iat, "exp": exp}, conditions)
    assert found == ("acme", "viewer") if is_good else str(found).startswith("invalid_claims: ")


@pytest.mark.parametrize("text", ["1e400", "NaN", "Infinity", "-1e400", '"1800000600"', "1" + "0" * 400, "null", "[1]"])
def test_a_number_that_overflows_is_no_time(text: str) -> None:
    """JSON can hold numbers that neither a float nor a machine integer can represent."""
    payload = orjson.dumps(claims()).decode().rstrip("}") + f', "exp": {text}' + "}"
    verifier = TokenVerifier(trust())
    found = verifier.verify(sign(payload.encode()), KeySet.from_document({"keys": [EC.public()]}))
    assert isinstance(found, Refusal), found
    assert found.reason in ("invalid_claims", "invalid_token")


@pytest.mark.parametrize(
    ("tenants", "claim", "is_good"),
    [
        (None, "system", False),
        ("*", "system", False),
        (["acme"], "system", False),
        (["acme", "system"], "system", True),
        ({"staff": "system"}, "staff", True),
        ({"staff": "system"}, "system", False),
    ],
)
def test_the_tenant_of_pulse_needs_an_entry_of_its_own(tenants: object, claim: str, is_good: bool) -> None:
    """A provider whose users choose the claim's value must not grant access to the installation's alerts."""
    [entry] = read_issuers(settings(oidc_issuer=ISSUER))
    conditions = entry.model_copy(update={"tenants": tenants}).trust(**LIMITS)
    found = read({"aud": "pulse", "role": "viewer", "tenant_id": claim}, conditions)
    assert found == ("system", "viewer") if is_good else str(found).startswith("invalid_claims: ")
    if tenants in (None, "*"):
        assert found == ("invalid_claims: tenant_id names Pulse's own tenant, which the issuer's tenants do not list.")


@pytest.mark.parametrize(
    ("values", "payload", "is_good"),
    [
        ({}, {"aud": "pulse"}, True),
        ({}, {"aud": ["x", "pulse"]}, True),
        ({"audience": "a,b"}, {"aud": "b"}, True),
        ({"audience": "a,b"}, {"aud": "pulse"}, False),
        ({}, {}, False),
        ({}, {"aud": None, "client_id": "pulse"}, False),
        ({"client_ids": "web"}, {"client_id": "web"}, True),
        ({"client_ids": "web"}, {"azp": "web"}, True),
        ({"client_ids": "web"}, {"client_id": "other"}, False),
        ({"client_ids": "web"}, {"client_id": "web", "azp": "other"}, False),
        ({"client_ids": "web"}, {"client_id": ["web"]}, False),
        ({"client_ids": "web"}, {"aud": "pulse"}, False),
        ({"client_ids": "web"}, {"aud": "pulse", "azp": "web"}, True),
        ({"client_ids": "web"}, {"aud": "other", "azp": "web"}, False),
        ({"client_ids": "web"}, {"aud": [], "azp": "web"}, False),
        ({"client_ids": "web"}, {"aud": 7, "azp": "web"}, False),
    ],
)
def test_a_token_is_for_us_by_audience_or_client(
    values: dict[str, Any], payload: dict[str, Any], is_good: bool
) -> None:
    found = read({"tenant_id": "acme", "role": "viewer", **payload}, trust(**values))
    assert found == ("acme", "viewer") if is_good else str(found).startswith("invalid_claims: ")


@pytest.mark.parametrize(
    ("payload", "is_access"),
    [
        ({}, True),
        ({"nonce": "n"}, False),
        ({"nonce": None}, False),
        ({"at_hash": "h"}, False),
        ({"c_hash": "h"}, False),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, False),
        ({"typ": "ID"}, False),
        ({"typ": "Refresh"}, False),
        ({"typ": "Offline"}, False),
        ({"typ": "Logout"}, False),
        ({"typ": ["Bearer"]}, False),
        ({"typ": "Bearer"}, True),
        ({"typ": "Bearer", "nonce": "n"}, True),  # Keycloak before version 25
        ({"typ": "Bearer", "nonce": "n", "at_hash": "h"}, False),
        ({"typ": "JWT", "nonce": "n"}, False),
        ({"token_use": "access"}, True),
        ({"token_use": "id"}, False),
        ({"token_use": ["access"]}, False),
    ],
)
def test_other_tokens_of_the_issuer_are_no_access_tokens(payload: dict[str, Any], is_access: bool) -> None:
    """They are refused even if audience and client coincide, as in an ID token of this client."""
    found = read({"aud": "pulse", "azp": "pulse", "tenant_id": "acme", "role": "admin", **payload}, trust())
    assert found == ("acme", "admin") if is_access else "access token" in found


@pytest.mark.parametrize(
    ("kind", "is_good"),
    [("at+jwt", True), ("application/at+jwt", True), ("AT+JWT", True), ("JWT", False)],
)
def test_the_type_can_be_required(kind: str, is_good: bool) -> None:
    keys = KeySet.from_document({"keys": [EC.public()]})
    text = sign(claims(), headers={"typ": kind})
    result = TokenVerifier(trust(strict_type="true")).verify(text, keys)
    assert isinstance(result, Principal) is is_good
    assert isinstance(TokenVerifier(trust()).verify(text, keys), Principal)


@pytest.mark.parametrize("key", [rsa_key(), ps256_key(), ec_key(), es384_key()], ids=lambda key: key.algorithm)
def test_four_algorithms_are_taken(key: SigningKey) -> None:
    """An RSA key that names no algorithm serves RS256 and PS256; one that does serves this one only."""
    verifier = TokenVerifier(Trust(ISSUER))
    text = sign(claims(), key=key)
    assert isinstance(verifier.verify(text, KeySet.from_document({"keys": [key.public()]})), Principal)
    nameless = {name: value for name, value in key.public().items() if name != "alg"}
    assert isinstance(verifier.verify(text, KeySet.from_document({"keys": [nameless]})), Principal)
    for other in {"RS256", "PS256", "ES256", "ES384", "RS512"} - {key.algorithm}:
        fixed = KeySet.from_document({"keys": [{**key.public(), "alg": other}]})
        result = verifier.verify(text, fixed)
        assert isinstance(result, Refusal)
        assert result.reason == "unknown_key"
    forged = text[:-8] + ("A" * 8 if not text.endswith("A" * 8) else "B" * 8)
    result = verifier.verify(forged, KeySet.from_document({"keys": [nameless]}))
    assert isinstance(result, Refusal)
    assert result.detail == "The token's signature is wrong."


def test_a_signature_of_one_padding_is_none_of_the_other() -> None:
    key = ps256_key()
    head, body, signature = sign(claims(), key=key).split(".")
    del head
    keys = KeySet.from_document({"keys": [{**key.public(), "alg": "RS256"}, {**key.public(), "alg": "PS256"}]})
    other = sign(claims(), key=SigningKey(key.kid, "RS256", key.pem)).split(".")[0]
    result = TokenVerifier(Trust(ISSUER)).verify(f"{other}.{body}.{signature}", keys)
    assert isinstance(result, Refusal)
    assert result.detail == "The token's signature is wrong."


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
PLACES = st.sampled_from(
    [
        "aud",
        "azp",
        "client_id",
        "cid",
        "appid",
        "typ",
        "token_use",
        "nonce",
        "sub",
        "name",
        "realm_access",
        "org",
        "exp",
    ]
)


DEMANDING = trust(client_ids="web", tenant_claim="org.id", role_claim="realm_access.roles")


@given(st.dictionaries(PLACES, VALUES, min_size=1))
def test_no_value_anywhere_makes_the_check_raise(payload: dict[str, Any]) -> None:
    read_claims({"iss": ISSUER, "aud": "pulse", "azp": "web", **TIMES, **payload}, trust=DEMANDING, now=NOW)


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "\u202eevil", "\u200b", "", 7, ["x"]])
def test_a_name_that_cannot_be_shown_is_left_out(name: object) -> None:
    """The name is not used for authorization, so access is not refused."""
    payload = {"iss": ISSUER, "sub": "alice", "aud": "pulse", "tenant_id": "acme", "role": "viewer", "name": name}
    result = read_claims({**payload, **TIMES}, trust=trust(), now=NOW)
    assert isinstance(result, Claims)
    assert result.user.actor.name is None


def write(tmp_path: Path, entries: object) -> UiSettings:
    path = tmp_path / "issuers.json"
    path.write_bytes(entries if isinstance(entries, bytes) else orjson.dumps(entries))
    return settings(oidc_issuers_file=str(path))


ONE, TWO = "https://one.test", "https://two.test"


async def test_an_issuer_speaks_for_its_own_tenants_only(tmp_path: Path) -> None:
    """An issuer's keys are not valid for other issuers."""
    first, second = ec_key("k"), ec_key("k")
    entries = [
        {"issuer": ONE, "tenants": ["acme", "shared"]},
        {"issuer": TWO, "tenants": {"org_XY": "globex", "org_S": "shared"}, "tenant_claim": "org_id"},
    ]
    loaded = read_issuers(write(tmp_path, b"\xef\xbb\xbf" + orjson.dumps(entries)))
    users = TokensByIssuer(
        {
            entry.issuer: UserTokens(
                Jwks(KeyServer({"keys": [key.public()]})),
                TokenVerifier(entry.trust(**LIMITS)),
            )
            for entry, key in zip(loaded, (first, second), strict=True)
        },
        max_token_bytes=8192,
    )

    async def tenant(key: SigningKey, **changes: Any) -> str:
        text = sign(claims(**changes), key=key)
        assert users.remembered(text) is None
        result = await users.check(text)
        if isinstance(result, Principal):
            assert users.remembered(text) == result
            return result.tenant_id
        return result.reason

    assert await tenant(first, iss=ONE) == "acme"
    assert await tenant(first, iss=ONE, tenant_id="shared") == "shared"
    assert await tenant(first, iss=ONE, tenant_id="globex") == "invalid_claims"
    assert await tenant(second, iss=TWO, org_id="org_XY") == "globex"
    assert await tenant(second, iss=TWO, org_id=["org_other", "org_XY"]) == "globex"
    assert await tenant(second, iss=TWO, org_id=["org_S", "org_XY"]) == "invalid_claims"
    assert await tenant(second, iss=TWO, org_id="globex") == "invalid_claims"
    assert await tenant(second, iss=TWO, tenant_id="acme") == "invalid_claims"
    assert await tenant(second, iss=ONE) in ("invalid_token", "auth_unavailable")
    assert await tenant(first, iss="https://three.test") == "invalid_claims"
    assert await tenant(first, iss=None) == "invalid_token"
    assert await tenant(first, iss=[ONE]) == "invalid_token"
    assert await tenant(first, iss=ONE, padding="x" * 9000) == "token_too_large"


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        (b"{", "not JSON"),
        ([], "must be a list of 1 to"),
        ({"issuer": ONE}, "must be a list of 1 to"),
        (["x"], "entry 1: must be an object"),
        ([{}], "entry 1: issuer"),
        ([{"issuer": ONE}, {"issuer": TWO, "tenants": ["a"]}], '"tenants"'),
        ([{"issuer": ONE, "tenants": "*"}, {"issuer": ONE, "tenants": "*"}], "listed twice"),
        ([{"issuer": ONE, "tenants": ["Acme"]}], "'Acme' cannot be the name of a tenant"),
        ([{"issuer": ONE, "tenants": {"x": "no tenant"}}], "cannot be the name of a tenant"),
        ([{"issuer": ONE, "tenants": "acme"}], "entry 1: tenants"),
        ([{"issuer": ONE, "role_map": {"boss": "root"}}], "entry 1: role_map"),
        ([{"issuer": ONE, "role_map": {}}], "entry 1: role_map"),
        ([{"issuer": ONE, "audience": "pulse"}], "entry 1: audience"),
        ([{"issuer": ONE, "audiences": []}], "entry 1: audiences"),
        ([{"issuer": ONE, "tenant_claim": "a..b"}], "entry 1: tenant_claim"),
        ([{"issuer": ONE, "jwks_url": "x", "jwks_file": "y"}], "exclude each other"),
        ([{"issuer": ONE, "client_auth": "private_key_jwt", "client_secret": "s3cret"}], "entry 1: client_auth"),
    ],
)
def test_a_file_of_issuers_is_checked_at_start(tmp_path: Path, entries: object, fault: str) -> None:
    with pytest.raises(IssuerFault) as raised:
        read_issuers(write(tmp_path, entries))
    assert str(raised.value).startswith("PULSE_OIDC_ISSUERS_FILE: /")
    assert fault in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_entries_have_the_settings_as_defaults_but_never_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "issuers.json"
    path.write_bytes(orjson.dumps([{"issuer": ONE}]))
    given = settings(
        oidc_issuers_file=str(path), oidc_audience="a,b", oidc_role_map='{"x": "viewer"}', oidc_client_secret="hush"
    )
    [entry] = read_issuers(given)
    assert (entry.audiences, entry.role_map) == (("a", "b"), {"x": "viewer"})
    assert (entry.client_id, entry.client_secret) == (None, None)


def test_an_issuer_may_be_described_elsewhere() -> None:
    """Tokens of version 1.0 of Entra ID need this."""
    given = settings(oidc_issuer="https://login.test/dir", jwt_issuer="https://sts.test/dir/", oidc_client_secret="s")
    [entry] = read_issuers(given)
    assert (entry.issuer, entry.discovery, entry.client_id) == (
        "https://sts.test/dir/",
        "https://login.test/dir",
        "pulse",
    )
    assert read_issuers(settings(jwt_issuer="https://sts.test/dir/")) == ()


def test_a_missing_file_and_two_ways_at_once_are_faults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(IssuerFault, match="No such file"):
        read_issuers(settings(oidc_issuers_file="/nowhere/issuers.json"))
    monkeypatch.setenv("PULSE_DATABASE_URL", URL)
    monkeypatch.setenv("PULSE_OIDC_ISSUERS_FILE", "/nowhere/issuers.json")
    monkeypatch.setenv("PULSE_OIDC_ISSUER", ONE)
    monkeypatch.setenv("PULSE_OIDC_ROLE_MAP", '{"x": "root"}')
    with pytest.raises(SystemExit):
        UiSettings.load()
    said = capsys.readouterr().err
    assert "PULSE_OIDC_ISSUERS_FILE lists all issuers" in said
    assert "PULSE_OIDC_ROLE_MAP" in said
