"""Tokens of Entra ID against a strict fake of it: what is asked, every known error, one asks for all."""

from __future__ import annotations

import asyncio
import json
import stat
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jwt
import msal
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from gateway.backends.microsoft.tokens import DeviceLogin, Identity
from gateway.backends.shared.oauth import BlockingHttp, NoAnswer
from gateway.config.finding import Finding
from gateway.model import Verdict
from tests.backends import kit
from tests.backends.graph_fake import CLIENT, LIFE, MAILBOX, RESOURCE, SECRET, TENANT, GraphFake, Way, open_way, refusal
from tests.backends.kit import RAW, Web, http
from tests.builders import START
from tests.rsa_keys import rsa_key

ENDS = datetime(2036, 5, 1, tzinfo=UTC)
SIGNED_IN = {"client_secret": None, "device_login": True, "mailbox": "me", "senders": [MAILBOX]}


def certificate(key: Any) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(ENDS)
    return builder.sign(key, hashes.SHA256())


KEY = rsa_key()
CERTIFICATE = certificate(KEY)


def pem(key: Any = KEY, cert: x509.Certificate = CERTIFICATE, password: bytes = b"") -> tuple[str, str]:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, hidden).decode()
    return cert.public_bytes(serialization.Encoding.PEM).decode(), secret


# -- what is asked ---------------------------------------------------------------------------------------------------


class Stub:
    """An http_client for msal itself, to see what it would ask for the same input."""

    def __init__(self, url: str) -> None:
        self.base = f"{url.replace('http:', 'https:')}/{TENANT}/oauth2/v2.0"
        self.forms: list[dict[str, str]] = []

    def get(self, url: str, **_: Any) -> SimpleNamespace:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token"}
        text = json.dumps({name: f"{self.base}/{end}" for name, end in names.items()})
        return SimpleNamespace(status_code=200, text=text, headers={})

    def post(self, url: str, data: dict[str, str], **_: Any) -> SimpleNamespace:
        self.forms.append({name: str(value) for name, value in data.items()})
        answer = {"access_token": "t", "expires_in": 3599, "token_type": "Bearer"}
        return SimpleNamespace(status_code=200, text=json.dumps(answer), headers={})


def parsed(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    claims = jwt.decode(assertion, options={"verify_signature": False})
    assert 0 < claims["exp"] - claims["iat"] <= 600
    return jwt.get_unverified_header(assertion), {k: v for k, v in claims.items() if k not in ("exp", "iat", "jti")}


@pytest.mark.parametrize("credential", ["secret", "certificate"])
async def test_the_token_request_is_that_of_msal(tmp_path: Path, credential: str) -> None:
    """The oracle is msal with its own defaults: same form, same JWT header and claims but for times and jti."""
    cert, key = pem()
    (tmp_path / "app.pem").write_text(cert + key)
    settings = {"client_secret": None, "certificate_file": str(tmp_path / "app.pem")} if credential != "secret" else {}
    async with open_way(tmp_path, **settings) as way:
        way.fake.certificate = CERTIFICATE
        assert (await way.one()).verdict is Verdict.SENT
        stub = Stub(way.web.url)
    own: Any = {"private_key": key, "public_certificate": cert} if credential != "secret" else SECRET
    authority = f"https://login.microsoftonline.com/{TENANT}"
    app = msal.ConfidentialClientApplication(CLIENT, client_credential=own, authority=authority, http_client=stub)
    app.acquire_token_for_client([f"{RESOURCE}/.default"])
    (ours,), (theirs,) = way.fake.forms, stub.forms
    if credential == "certificate":
        theirs["client_assertion"] = theirs["client_assertion"].removeprefix("b'").removesuffix("'")
        ours["client_assertion"], theirs["client_assertion"] = (  # type: ignore[assignment]
            parsed(form["client_assertion"]) for form in (ours, theirs)
        )
        assert ours["client_assertion"][0]["alg"] == "PS256"  # type: ignore[index]
    assert ours == theirs


PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PKCS1, LOCK = serialization.PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"pw")
CA_KEY = rsa_key("other")
OTHER, EC = rsa_key("other"), ec.generate_private_key(ec.SECP256R1())
CERT, AUTHORITY = (one.public_bytes(PEM) for one in (CERTIFICATE, certificate(CA_KEY)))


def secret(key: Any = KEY, form: Any = PKCS8, lock: Any = None) -> bytes:
    text: bytes = key.private_bytes(PEM, form, lock or serialization.NoEncryption())
    return text


def pfx(lock: Any = None, key: Any = KEY, cas: Any = None) -> bytes:
    return pkcs12.serialize_key_and_certificates(b"g", key, CERTIFICATE, cas, lock or serialization.NoEncryption())


BAGS = "Bag Attributes\n    friendlyName: Büro\nsubject=CN = gateway\n".encode()
# The file; the password in the settings; a second file with the key.
FORMS: dict[str, tuple[bytes, str, bytes | None]] = {
    "key behind": (CERT + secret(), "", None),
    "key before": (secret() + CERT, "", None),
    "PKCS#1": (CERT + secret(form=PKCS1), "", None),
    "CR LF": ((CERT + secret()).replace(b"\n", b"\r\n"), "", None),
    "byte order mark": (b"\xef\xbb\xbf" + CERT + secret(), "", None),
    "indented": (b"".join(b"    " + line for line in (CERT + secret()).splitlines(keepends=True)), "", None),
    "bag attributes": (BAGS + CERT + b"Bag Attributes: <Empty>\n" + secret(), "", None),
    "leaf before authority": (CERT + AUTHORITY + secret(), "", None),
    "authority before leaf": (AUTHORITY + secret() + CERT, "", None),
    "encrypted PKCS#8": (CERT + secret(lock=LOCK), "pw", None),
    "encrypted, old form": (CERT + secret(form=PKCS1, lock=LOCK), "pw", None),
    "a password for nothing": (CERT + secret(), "pw", None),
    "two files": (CERT, "", secret()),
    "two files, encrypted": (AUTHORITY + CERT, "pw", secret(lock=LOCK)),
    "PFX": (pfx(LOCK), "pw", None),
    "PFX with authorities": (pfx(LOCK, cas=[certificate(CA_KEY)]), "pw", None),
    "PFX without a password": (pfx(), "", None),
}


def written(path: Path, data: bytes, password: str, key: bytes | None) -> dict[str, Any]:
    """The settings for these files."""
    (path / "app.pem").write_bytes(data)
    settings: dict[str, Any] = {"client_secret": None, "certificate_file": str(path / "app.pem")}
    settings |= {"certificate_password": password} if password else {}
    if key is not None:
        (path / "app.key").write_bytes(key)
        settings["private_key_file"] = str(path / "app.key")
    return settings


@pytest.mark.parametrize("form", FORMS)
async def test_a_certificate_in_any_form_and_when_it_ends(tmp_path: Path, form: str) -> None:
    """As openssl, key vaults and Windows write it: the fake knows the leaf alone, and checks what is signed."""
    async with open_way(tmp_path, **written(tmp_path, *FORMS[form])) as way:
        way.fake.certificate = CERTIFICATE
        assert (await way.one()).verdict is Verdict.SENT
        assert way.signals.credential == [ENDS.timestamp()]


SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
DER_KEY = KEY.private_bytes(serialization.Encoding.DER, PKCS8, serialization.NoEncryption())
NO_FORMS: dict[str, tuple[bytes, str, bytes | None, str, str]] = {  # ... and what is said, and what to do
    "empty": (b"", "", None, "no certificate in it", "cat the certificate and its key"),
    "nonsense": (b"hello", "", None, "no PEM in it", "cat the certificate and its key"),
    "no key": (CERT, "", None, "no private key in it", "private_key_file"),
    "no certificate": (secret(), "", None, "no certificate in it", "cat the certificate and its key"),
    "other key": (CERT + secret(OTHER), "", None, "not the key of the certificate", "certificate_file"),
    "other key apart": (CERT, "", secret(OTHER), "not the key of the certificate", "private_key_file"),
    "EC key": (certificate(EC).public_bytes(PEM) + secret(EC), "", None, "an EC key", "RSA key of 2048"),
    "locked": (CERT + secret(lock=LOCK), "", None, "the key needs a password", "certificate_password_file"),
    "locked, old": (CERT + secret(form=PKCS1, lock=LOCK), "", None, "the key needs a password", "openssl pkey"),
    "wrong password": (CERT + secret(lock=LOCK), "px", None, "does not open the key", "certificate_password"),
    "UTF-16": ((CERT + secret()).decode().encode("utf-16"), "", None, "UTF-16 text, not PEM", "Set-Content"),
    "DER": (CERTIFICATE.public_bytes(serialization.Encoding.DER), "", None, "DER, not PEM", "openssl x509 -inform"),
    "DER key": (DER_KEY, "", None, "DER, not PEM", "openssl pkey -inform der"),
    "PFX, locked": (pfx(LOCK), "", None, "a PFX file (PKCS#12), which needs a password", "certificate_password_file"),
    "PFX, wrong": (pfx(LOCK), "px", None, "which the password does not open", "certificate_password"),
    "public key": (KEY.public_key().public_bytes(PEM, SPKI) + CERT, "", None, "no private key in it", "cat the"),
    "damaged": (CERT[:90] + b"\n-----END CERTIFICATE-----\n" + secret(), "", None, "is damaged", "unchanged"),
    "damaged key": (CERT + secret()[:90] + b"\n-----END PRIVATE KEY-----\n", "", None, "is damaged", "unchanged"),
}


@pytest.mark.parametrize("form", NO_FORMS)
async def test_a_certificate_that_cannot_be_used(tmp_path: Path, form: str) -> None:
    """Nobody is asked, and what it is and what to do is told; of the key nothing is shown."""
    *given, words, fix = NO_FORMS[form]
    async with open_way(tmp_path, **written(tmp_path, *given)) as way:  # type: ignore[arg-type]
        outcome = await way.one()
        assert (outcome.verdict, way.web.requests) == (Verdict.MISCONFIGURED, way.web.requests[:1])
        assert words in outcome.detail
        assert fix in outcome.fix
        assert "backends.office" in outcome.fix
        assert (await way.backend.check()).fix == outcome.fix


async def test_a_certificate_that_went_away(tmp_path: Path) -> None:
    settings = written(tmp_path, CERT + secret(), "", None)
    async with open_way(tmp_path, **settings) as way:
        (tmp_path / "app.pem").unlink()
        assert "No such file" in (await way.one()).detail


def foreign(ends: datetime) -> bytes:
    return jwt.encode({"iss": "https://oidc.example/", "exp": ends}, "k" * 32, algorithm="HS256").encode()


async def test_a_token_of_another_issuer_is_read_for_every_token(tmp_path: Path) -> None:
    """A cluster renews it about every hour (learn.microsoft.com/entra/workload-id/workload-identity-federation)."""
    file = tmp_path / "azure-identity-token"
    file.write_text("first")
    async with open_way(tmp_path, client_secret=None, federated_token_file=str(file)) as way:
        way.fake.federated = "second"
        assert (await way.one()).verdict is Verdict.MISCONFIGURED
        check = await way.backend.check()
        assert "federated credential (its subject" in check.fix
        file.write_text("second\n")
        assert (await way.backend.check()).ok
        assert (await way.one()).verdict is Verdict.SENT
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert (way.fake.forms[-1]["client_assertion"], way.fake.forms[-1]["client_assertion_type"]) == ("second", kind)
    for content, words in (
        (b"", "is empty"),
        (b"two words", "not a token"),
        (b"\xff", "not a token"),
        (foreign(START - timedelta(hours=1)), "ended at 2026-"),
        (None, "No such file"),
    ):
        file.write_bytes(content) if content is not None else file.unlink()
        async with open_way(tmp_path, client_secret=None, federated_token_file=str(file)) as way:
            check = await way.backend.check()
            assert (check.ok, "federated_token_file" in check.fix) == (False, True)
            assert words in check.summary
            assert way.fake.forms == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (70021, "issuer, subject, audience"),
        (700211, "its issuer"),
        (700212, "its audience"),
        (700213, "its subject"),
        (700024, "who renews federated_token_file"),
        (50013, "openid-configuration"),
        (700016, "tenant is the one where the application is registered"),
    ],
)
async def test_what_does_not_fit_in_a_token_of_another_issuer_is_named(tmp_path: Path, code: int, words: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(foreign(START + timedelta(hours=1)))
    async with open_way(tmp_path, client_secret=None, federated_token_file=str(file)) as way:
        way.fake.federated = "another"
        way.fake.answers["token"] = [refusal(401, "invalid_client", code, "No matching federated identity record")]
        check = await way.backend.check()
        assert (check.ok, words in check.fix) == (False, True), check.fix


async def test_a_token_file_that_is_empty_is_told_when_the_settings_are_checked(tmp_path: Path) -> None:
    """It may be filled in a minute: that is no reason not to start."""
    (tmp_path / "token").write_text("\n")
    async with open_way(tmp_path, client_secret=None, federated_token_file=str(tmp_path / "token")) as way:
        (found,) = way.settings.examine("office", tmp_path)
        assert isinstance(found, Finding)
        assert (found.keys, found.fatal, "is empty" in found.text) == (("federated_token_file",), False, True)


async def test_a_client_secret_ends_on_the_day_given(tmp_path: Path) -> None:
    async with open_way(tmp_path, client_secret_expires=date(2027, 6, 30)) as way:
        assert way.signals.credential == [datetime(2027, 6, 30, tzinfo=UTC).timestamp()]


@pytest.mark.parametrize("client_id", [None, CLIENT])
async def test_a_managed_identity_is_asked_of_the_machine(
    tmp_path: Path, client_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"client_secret": None, "managed_identity": True, "tenant": None, "client_id": client_id}
    async with open_way(tmp_path, **own) as way:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", way.web.url)
        assert (await way.one()).verdict is Verdict.SENT
        way.fake.answers["metadata"] = [
            http(400, {"error": "invalid_request", "error_description": "Identity not found"})
        ]
        way.fake.expire()
        outcome = await way.one()
        assert outcome.verdict is Verdict.MISCONFIGURED
        assert (outcome.detail, "managed identity" in outcome.fix) == ("invalid_request: Identity not found", True)
        assert "managed identity" in (await way.backend.check()).fix or way.fake.calls[-1] == "profile"


# -- every error -----------------------------------------------------------------------------------------------------

ERRORS = [
    (401, "invalid_client", 7000215, "Value, not its Secret ID"),
    (401, "invalid_client", 7000222, "has expired"),
    (401, "invalid_client", 700027, "upload the certificate"),
    (401, "invalid_client", 700024, "set the clock"),
    (401, "invalid_client", 1, "check client_id and client_secret"),
    (400, "unauthorized_client", 700016, "check client_id, and that tenant"),
    (400, "unauthorized_client", 1, "check client_id and tenant"),
    (400, "invalid_grant", 65001, "admin consent"),
    (400, "interaction_required", 50079, "admin consent"),
    (400, "consent_required", 65001, "admin consent"),
    (400, "invalid_grant", 53003, "Conditional Access"),
    (400, "invalid_scope", 70011, "check cloud"),
    (400, "invalid_resource", 500011, "check cloud"),
    (400, "invalid_request", 900144, "check tenant, client_id"),
    (401, "invalid_client", 7000218, "public client flows"),
]


@pytest.mark.parametrize(("status", "name", "code", "fix"), ERRORS)
async def test_what_entra_refuses_rests_the_backend_and_says_what_to_do(
    tmp_path: Path, status: int, name: str, code: int, fix: str
) -> None:
    """Auth, so never a bounce."""
    async with open_way(tmp_path) as way:
        outcome = await way.one("token", refusal(status, name, code, f"echo {SECRET}"))
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.MISCONFIGURED, None, "4.7.0")
        assert (outcome.detail, fix in outcome.fix) == (f"{name}: AADSTS{code}: echo ***", True)
        assert way.signals.refreshes == [("refused", outcome.detail)]
        way.fake.answers["token"] = [refusal(status, name, code)]
        check = await way.backend.check()
        assert not check.ok
        assert fix in check.fix
        assert way.fake.delivered == []


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "temporarily_unavailable", 90033),
        refusal(429, "too_many", 50196),
        http(500, "<html>"),
        http(503, {"error": "temporarily_unavailable"}),
        http(200, "<html>proxy</html>"),
        http(302, "", {"Location": "https://portal.example"}),
        kit.reset_at_once,
        kit.garbage,
    ],
)
@pytest.mark.parametrize("place", ["token", "discovery"])
async def test_where_entra_cannot_be_asked_mail_waits(tmp_path: Path, place: str, answer: Any) -> None:
    """Network, 429 and 5xx: nothing was sent, and nobody has to do anything."""
    if place == "discovery" and isinstance(answer, bytes) and b" 400 " in answer[:20]:
        pytest.skip("only token endpoints say so")
    async with open_way(tmp_path) as way:
        outcome = await way.one(place, answer, answer)  # aiohttp asks twice where asking does no harm
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.DEFERRED, None, "4.4.1")
        assert (way.signals.refreshes, "network" in outcome.fix) == ([("unavailable", outcome.detail)], True)
        way.fake.answers.clear()
        way.clock.advance(10)
        assert (await way.one()).verdict is Verdict.SENT


async def test_a_tenant_that_does_not_exist(tmp_path: Path) -> None:
    async with open_way(tmp_path, tenant="nowhere.example") as way:
        assert (await way.one()).verdict is Verdict.MISCONFIGURED
        assert (await way.backend.check()).fix == "there is no such tenant: check tenant and cloud"


TOKEN: dict[str, Any] = {"token_type": "Bearer", "access_token": "abc"}  # Graph does not know it
ODD = [
    (TOKEN, 401),  # RFC 6749, 5.1: how long it lasts need not be said
    (TOKEN | {"expires_in": 10**15}, 401),
    (TOKEN | {"expires_in": "soon"}, None),
    (TOKEN | {"expires_in": None}, None),
    (TOKEN | {"expires_in": 3599, "scope": 5}, None),
    *((TOKEN | {"access_token": odd}, None) for odd in ("x\r\nx-evil: 1", "\u20ac", "", 5, None)),
]


@pytest.mark.parametrize(("answer", "code"), ODD)
async def test_an_odd_token_is_used_or_waited_out(tmp_path: Path, answer: dict[str, Any], code: int | None) -> None:
    """What no HTTP header can carry was kept for an hour, and every call said that it could not connect."""
    async with open_way(tmp_path) as way:
        outcome = await way.one("token", http(200, answer), http(200, answer))
        assert (outcome.verdict, outcome.code) == (Verdict.MISCONFIGURED if code else Verdict.DEFERRED, code), outcome
        assert code or "authority of backends.office" in outcome.fix
        way.fake.answers.clear()
        way.clock.advance(5)
        assert (await way.one()).verdict is Verdict.SENT


async def test_an_odd_refusal_is_one_all_the_same(tmp_path: Path) -> None:
    answer = http(400, {"error": "invalid_client", "error_description": "no", "error_codes": 7})
    async with open_way(tmp_path) as way:
        assert (await way.one("token", answer)).verdict is Verdict.MISCONFIGURED


async def test_secrets_show_nowhere(tmp_path: Path) -> None:
    identity = Identity("x", "https://login.example/t", CLIENT, RESOURCE, secret=SECRET)
    assert SECRET not in repr(identity)


# -- one for all -----------------------------------------------------------------------------------------------------


async def crowd(way: Way, count: int = 100) -> set[Verdict]:
    """Each from a mailbox of his own, as one mailbox has only a few calls at a time."""
    senders = [f"u{number}@corp.example" for number in range(count)]
    way.fake.mailboxes.update(senders)
    mails = [(sender, RAW.replace(MAILBOX.encode(), sender.encode())) for sender in senders]
    return {outcome.verdict for outcome in await asyncio.gather(*(way.one(raw=r, header_from=s) for s, r in mails))}


async def test_a_token_that_graph_refuses_is_really_asked_for_again_once(tmp_path: Path) -> None:
    """msal would answer from its cache; 401 after that is final for this attempt."""
    async with open_way(tmp_path, mailbox="sender") as way:
        await way.one()
        way.fake.expire()
        assert await crowd(way) == {Verdict.SENT}
        assert len(way.fake.forms) == 2
        calls = len(way.fake.calls)
        outcome = await way.one("sendMail", http(401), http(401))
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.MISCONFIGURED, 401, "4.7.0")
        assert way.fake.calls[calls:] == ["sendMail", "discovery", "token", "sendMail"]


async def test_a_refused_refresh_is_not_repeated_at_once(tmp_path: Path) -> None:
    async with open_way(tmp_path, mailbox="sender") as way:
        way.fake.answers["token"] = [refusal(401, "invalid_client", 7000222)]
        assert await crowd(way, 20) == {Verdict.MISCONFIGURED}
        assert way.fake.calls.count("token") == 1


# -- device login ----------------------------------------------------------------------------------------------------


async def begun(way: Way) -> DeviceLogin:
    identity = way.settings.identity("office", way.context.state_dir)
    login = DeviceLogin(identity, BlockingHttp(way.context.fetch, asyncio.get_running_loop()))
    assert "ABCD-1234" in await asyncio.to_thread(login.start)
    return login


async def sign_in(way: Way) -> str:
    login = await begun(way)
    assert await asyncio.to_thread(login.finish) == ""
    way.fake.signed_in = True
    return await asyncio.to_thread(login.finish)


async def test_a_device_login_is_stored_and_renewed(tmp_path: Path) -> None:
    """Each refresh brings a new refresh token, which is kept for the next one."""
    async with open_way(tmp_path, **SIGNED_IN) as way:
        way.fake.mailboxes.add("me")
        outcome, fix = await way.one(), "sign in: gateway auth microsoft --backend office"
        assert (outcome.detail, outcome.fix) == ("nobody has signed in yet", fix)
        assert (await way.backend.check()).fix == "sign in: gateway auth microsoft --backend office"
        assert await sign_in(way) == MAILBOX
        store = tmp_path / "oauth-office.json"
        assert stat.S_IMODE(store.stat().st_mode) == 0o600
        way.clock.advance(61)
        assert (await way.one()).verdict is Verdict.SENT
        way.fake.refresh_tokens.discard("rt-1")  # from now on only the newer one counts
        way.clock.advance(LIFE)
        assert (await way.one()).verdict is Verdict.SENT
        assert [form.get("refresh_token") for form in way.fake.forms[-2:]] == ["rt-1", "rt-2"]
        assert way.signals.credential[-1] == (way.clock.now() + timedelta(days=90)).timestamp()
        assert (await way.backend.check()).facts["signed in"] == MAILBOX
        assert list(tmp_path.glob("oauth*")) == [store]


@pytest.mark.parametrize(
    ("settings", "scopes"),
    [
        ({}, "Mail.Send"),
        ({"safe_send": True}, "Mail.ReadWrite Mail.Send"),
        ({"large_messages": "draft", "mailbox": MAILBOX}, "Mail.ReadWrite.Shared Mail.Send.Shared"),
    ],
)
async def test_a_device_login_asks_for_no_more_than_the_settings_need(
    tmp_path: Path, settings: dict[str, Any], scopes: str
) -> None:
    async with open_way(tmp_path, **SIGNED_IN | settings) as way:
        await sign_in(way)
        asked = [scope for scope in way.fake.forms[0]["scope"].split() if scope.startswith(RESOURCE)]
        assert " ".join(sorted(scope.removeprefix(f"{RESOURCE}/") for scope in asked)) == scopes


async def test_a_personal_account_signs_in_as_one_of_the_consumers(tmp_path: Path) -> None:
    async with open_way(tmp_path, **SIGNED_IN, tenant="consumers") as way:
        assert await sign_in(way) == MAILBOX


@pytest.mark.parametrize(
    ("stored", "detail"),
    [("", "interaction_required"), ("{", "damaged"), ("[]", "damaged"), ("{}", "interaction_required"),
     (None, "nobody has signed")],
)  # fmt: skip
async def test_a_sign_in_that_is_of_no_use(tmp_path: Path, stored: str | None, detail: str) -> None:
    if stored is not None:
        (tmp_path / "oauth-office.json").write_text(stored)
    async with open_way(tmp_path, **SIGNED_IN) as way:
        outcome = await way.one()
        assert (outcome.verdict, detail in outcome.detail) == (Verdict.MISCONFIGURED, True), outcome
        assert "gateway auth microsoft --backend office" in (await way.backend.check()).fix


@pytest.mark.parametrize("name", ["invalid_grant", "interaction_required", "consent_required"])
async def test_a_sign_in_that_has_ended_asks_for_another(tmp_path: Path, name: str) -> None:
    async with open_way(tmp_path, **SIGNED_IN) as way:
        await sign_in(way)
        outcome = await way.one("token", refusal(400, name, 700082))
        assert outcome.verdict is Verdict.MISCONFIGURED
        way.fake.answers["token"] = [refusal(400, name, 700082)]
        assert (await way.backend.check()).fix == "sign in again: gateway auth microsoft --backend office"


@pytest.mark.parametrize("name", ["authorization_declined", "expired_token", "bad_verification_code"])
async def test_a_sign_in_that_fails_ends(tmp_path: Path, name: str) -> None:
    async with open_way(tmp_path, **SIGNED_IN) as way:
        login = await begun(way)
        way.fake.answers["token"] = [refusal(400, name)]
        with pytest.raises(NoAnswer, match=name) as error:
            await asyncio.to_thread(login.finish)
        assert "check tenant" in error.value.outcome.fix
        assert not (tmp_path / "oauth-office.json").exists()


async def test_a_provider_that_is_asked_too_often_is_asked_less(tmp_path: Path) -> None:
    async with open_way(tmp_path, **SIGNED_IN) as way:
        login = await begun(way)
        assert login.interval == 1
        way.fake.answers["token"] = [refusal(400, "slow_down")]
        assert (await asyncio.to_thread(login.finish), login.interval) == ("", 6)


async def test_a_renewal_that_cannot_be_stored_is_no_refusal(tmp_path: Path) -> None:
    async with open_way(tmp_path, **SIGNED_IN) as way:
        await sign_in(way)
        with mock.patch("gateway.backends.shared.stores.write_whole", side_effect=OSError(28, "No space left")):
            outcome = await way.one()
        assert (outcome.verdict, "can write" in outcome.fix) == (Verdict.DEFERRED, True)


async def test_the_fake_refuses_what_entra_refuses(tmp_path: Path) -> None:
    """A fake that takes anything proves nothing."""
    fake = GraphFake()
    async with Web(fake) as web, kit.context(tmp_path) as context:
        url = f"{web.url}/{TENANT}/oauth2/v2.0/token"
        answer = await context.fetch.request("POST", url, content=b"client_id=x", headers={}, deadline=5)
        assert answer.status == 400
