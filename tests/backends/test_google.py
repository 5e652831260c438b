"""Tokens of Google: requests equal google-auth's own, every known error with its fix, files, rotation."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from google.oauth2 import credentials, service_account

from gateway.backends import Context
from gateway.backends.google.errors import SERVICE as SERVICE_ROWS
from gateway.backends.google.errors import USER as USER_ROWS
from gateway.backends.google.tokens import GoogleTokens
from gateway.backends.shared.base import NoAnswer
from gateway.backends.shared.oauth import AccessToken, BlockingHttp
from gateway.backends.shared.table import first
from gateway.fetch import Answer
from gateway.model import Verdict
from tests.backends import kit
from tests.backends.gmail_fake import (
    AUDIENCE,
    CLIENT_SECRET,
    MAILBOX,
    REFRESH,
    SCOPE,
    GoogleFake,
    authorized_user_info,
    open_way,
    service_account_info,
    stored,
)
from tests.backends.kit import Request, Web, http
from tests.fakes import START, FakeClock, until
from tests.rsa_keys import rsa_key

SA = "sa@proj.iam.gserviceaccount.com"
IMPERSONATE = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{SA}:generateAccessToken"


@dataclass
class Recorded:
    """A transport for google-auth that only writes down what it was asked."""

    asked: dict[str, Any]
    status: int = 200

    def __call__(self, url: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any) -> Any:
        self.asked = {"url": url, "method": method, "body": body, "headers": headers}
        return mock.Mock(status=200, headers={}, data=b'{"access_token": "x", "expires_in": 3599}')


def form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode(), strict_parsing=True))


def same_headers(theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    return all(ours[name.lower()] == value for name, value in theirs.items())


# -- the requests ----------------------------------------------------------------------------------------------------


async def test_the_assertion_is_google_auths_own(tmp_path: Path) -> None:
    async with open_way(tmp_path) as way:
        assert (await way.one()).verdict is Verdict.SENT
        ours = way.web.requests[0]
    oracle = Recorded({})
    info = service_account_info()
    made = service_account.Credentials.from_service_account_info(info, scopes=[SCOPE], subject=MAILBOX)
    made.refresh(oracle)
    theirs = oracle.asked
    assert (theirs["url"], theirs["method"], ours.method) == (AUDIENCE, "POST", "POST")
    assert same_headers(theirs["headers"], ours.headers)
    mine, other = form(ours.body), form(theirs["body"])
    assertions = [mine.pop("assertion"), other.pop("assertion")]
    assert mine == other == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}
    assert [jwt.get_unverified_header(one) for one in assertions] == [
        {"typ": "JWT", "alg": "RS256", "kid": "kid-1"}
    ] * 2
    claims = [
        jwt.decode(one, rsa_key().public_key(), ["RS256"], audience=AUDIENCE, options={"verify_iat": False})
        for one in assertions
    ]
    assert [one.pop("exp") - one.pop("iat") for one in claims] == [3600, 3600]
    assert claims[0] == claims[1] == {"iss": SA, "sub": MAILBOX, "scope": SCOPE, "aud": AUDIENCE}


async def test_the_refresh_is_google_auths_own(tmp_path: Path) -> None:
    async with open_way(tmp_path, authorized_user_info()) as way:
        assert (await way.one()).verdict is Verdict.SENT
        ours = way.web.requests[0]
    oracle, info = Recorded({}), authorized_user_info()
    credentials.Credentials.from_authorized_user_info(info).refresh(oracle)
    theirs = oracle.asked
    assert (theirs["url"], theirs["method"], ours.method) == (AUDIENCE, "POST", "POST")
    assert same_headers(theirs["headers"], ours.headers)
    assert form(ours.body) == form(theirs["body"])


async def test_without_token_url_the_file_says_where(tmp_path: Path) -> None:
    async with Web(GoogleFake(FakeClock())) as web:
        for info in (
            service_account_info(token_uri=web.url + "/token"),
            authorized_user_info(token_uri=web.url + "/token"),
        ):
            async with open_way(tmp_path, info, token_url=None) as way:
                assert (await way.backend.check()).ok
        assert len(web.requests) == 2


@pytest.mark.parametrize("life", [3599, "3599"])
async def test_the_life_of_a_token_may_be_a_string(tmp_path: Path, life: int | str) -> None:
    async with open_way(tmp_path) as way:
        way.fake.life = life
        assert (await way.one()).verdict is Verdict.SENT
        assert (await way.backend.check()).facts["token until"] == "2026-11-20 12:59:59Z"


# -- errors ----------------------------------------------------------------------------------------------------------


def said(error: str, text: str = "", status: int = 400, **more: str) -> bytes:
    return http(status, {"error": error, "error_description": text, **more})


SKEW = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
UNAUTHORIZED = "Client is unauthorized to retrieve access tokens using this method, or client not authorized"
USER, SERVICE = authorized_user_info(), service_account_info()
SIGN_IN = "gateway auth google --backend gm"
REFUSALS: list[tuple[dict[str, Any], bytes, tuple[str, ...]]] = [
    (USER, said("invalid_grant", "Token has been expired or revoked."), ("7 days", "publish", SIGN_IN)),
    (USER, said("invalid_grant", "Bad Request"), ("password", "6 months", SIGN_IN)),
    (USER, said("invalid_grant", "reauth", error_subtype="invalid_rapt"), ("session control", SIGN_IN)),
    (SERVICE, said("invalid_grant", SKEW), ("clock", "2026-11-20 12:00:00Z", "timedatectl")),
    (SERVICE, said("invalid_grant", "Invalid JWT Signature."), ("google.json", SA, "Add key")),
    (SERVICE, said("invalid_grant", "Not a valid email or user ID."), (MAILBOX, "backends.gm.mailbox")),
    (SERVICE, said("invalid_grant", "Invalid email or User ID"), (MAILBOX, "backends.gm.mailbox")),
    (SERVICE, said("invalid_grant", "account not found"), (SA, "gone or disabled")),
    (SERVICE, said("unauthorized_client", UNAUTHORIZED, 401), ("112233445566778899001", SCOPE, "delegation", "24 h")),
    (USER, said("unauthorized_client", "Unauthorized", 401), ("Desktop app", "--client-file")),
    (SERVICE, said("access_denied", "Requested client not authorized.", 401), ("112233445566778899001", SCOPE)),
    (USER, said("access_denied", "by policy"), ("Manage app access", "client-1.apps.googleusercontent.com")),
    (USER, said("admin_policy_enforced", ""), ("Manage app access", "client-1.apps.googleusercontent.com")),
    (USER, said("org_internal", ""), ("External",)),
    (SERVICE, said("admin_policy_enforced", ""), ("Manage app access",)),
    (USER, said("invalid_client", "The OAuth client was not found.", 401), ("Create client", "--client-file")),
    (USER, said("deleted_client", "", 401), ("Create client",)),
    (USER, said("disabled_client", "", 401), ("Create client",)),
    (SERVICE, said("invalid_client", "", 401), ("Service Accounts",)),
    (SERVICE, said("disabled_client", "", 401), ("Service Accounts",)),
    (SERVICE, said("invalid_scope", "Some requested scopes were invalid"), (SCOPE, "commas")),
    (USER, said("something_new", "?"), (SIGN_IN,)),
    (SERVICE, said("something_new", "?"), (SA,)),
    (SERVICE, http(404, "<html>Not Found</html>"), ("token_url",)),
]


@pytest.mark.parametrize(("info", "answer", "words"), REFUSALS)
async def test_every_refusal_pauses_the_backend_and_says_what_to_do(
    tmp_path: Path, info: dict[str, Any], answer: bytes, words: tuple[str, ...]
) -> None:
    """Nothing is bounced, nothing was sent, asked at most once a minute."""
    async with open_way(tmp_path, info) as way:
        way.fake.token_answers = [answer] * 3
        outcomes = [await way.one(), await way.one()]
        assert len(way.fake.token_requests) == 1
        check = await way.backend.check()
        assert len(way.fake.token_requests) == 2
        assert way.sends == []
    for outcome in outcomes:
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.MISCONFIGURED, None, "4.7.0")
        assert outcome.retry_after is None
        assert [word for word in words if word not in f"{outcome.detail} {outcome.fix}"] == []
    assert not check.ok
    assert [word for word in words if word not in check.fix] == []
    error = json.loads(answer.partition(b"\r\n\r\n")[2]).get("error") if b"{" in answer else "HTTP"
    assert error in check.summary
    assert {"refused"} == {result for result, _ in way.signals.refreshes}


def test_every_row_of_the_table_is_tried() -> None:
    used: set[int] = set()
    for info, answer, _ in [*REFUSALS, (SERVICE, said("", "Permission 'iam.serviceAccounts.signJwt' denied"), ())]:
        body = json.loads(answer.partition(b"\r\n\r\n")[2]) if b"{" in answer else {}
        text = ": ".join(filter(None, (body.get("error"), body.get("error_subtype"), body.get("error_description"))))
        text = text or f"HTTP {answer.split()[1].decode()}"
        used.add(id(first(USER_ROWS if info is USER else SERVICE_ROWS, 0, "", text)))
    assert used == set(map(id, (*USER_ROWS, *SERVICE_ROWS)))


@pytest.mark.parametrize(
    "answer",
    [
        *(http(status, {"error": "x"}) for status in (408, 429, 500, 503, 504)),
        *(said(error) for error in ("internal_failure", "server_error", "temporarily_unavailable")),
        http(502, "<html>"),
        http(200, "<html>captive portal</html>"),
        http(200, {}),
        http(200, "[]"),
        http(200, "[" * 100_000),
        http(200, {"access_token": "x\r\nx-evil: 1", "expires_in": 3599}),
        http(200, {"access_token": "x", "expires_in": "soon"}),
        http(200, {"access_token": "x", "expires_in": [1]}),
        http(200, {"access_token": 5, "expires_in": 3599}),
        http(200, {"access_token": "", "expires_in": 3599}),
        http(200, {"access_token": "x", "expires_in": 10**30}),
        kit.reset_at_once,
        kit.garbage,
    ],
)
@pytest.mark.parametrize("info", [USER, SERVICE], ids=["user", "service"])
async def test_trouble_of_the_token_endpoint_is_waited_out(tmp_path: Path, info: dict[str, Any], answer: Any) -> None:
    """Nothing was sent and nobody is to blame; google-auth's own sleeping and retrying is left out."""
    async with open_way(tmp_path, info) as way:
        way.fake.token_answers = [answer]
        outcome = await way.one()
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.DEFERRED, None, "4.4.1")
        assert len(way.fake.token_requests) == 1
        way.clock.advance(5)
        assert (await way.one()).verdict is Verdict.SENT


@pytest.mark.parametrize("garbage", [None, "", {"a": 1}, 5])
async def test_garbage_never_takes_the_place_of_a_good_refresh_token(tmp_path: Path, garbage: object) -> None:
    async with open_way(tmp_path, USER) as way:
        way.fake.more = {"refresh_token": garbage}
        assert (await way.one()).verdict is Verdict.SENT
        assert json.loads(way.settings.file.read_text())["refresh_token"] == REFRESH


# -- files -----------------------------------------------------------------------------------------------------------

WEB = {"web": {"client_id": "x", "client_secret": CLIENT_SECRET}}
FILES: list[tuple[dict[str, Any], str, str, str]] = [
    (SERVICE, "not JSON " + REFRESH, "no JSON file", "downloaded JSON file"),
    (SERVICE, "[]", "no JSON file", "downloaded JSON file"),
    (SERVICE, "{}", "no JSON file", "downloaded JSON file"),
    (SERVICE, json.dumps(WEB), "an OAuth client", "make a Desktop client instead: gateway auth google --client-file"),
    (SERVICE, json.dumps({"installed": WEB["web"]}), "an OAuth client", "set authorized_user_file"),
    (SERVICE, json.dumps(USER), "of type authorized_user", "authorized_user_file in backends.gm"),
    (USER, json.dumps(SERVICE), "of type service_account", "service_account_file in backends.gm"),
    (SERVICE, json.dumps({"type": "gdch_service_account"}), "type gdch_service_account", "needs one of type"),
    (SERVICE, json.dumps({**SERVICE, "private_key": "hunter2 no PEM"}), ".json: ", "as Google made it"),
    (SERVICE, json.dumps({"type": "service_account"}), "missing fields", "as Google made it"),
    (SERVICE, json.dumps({"type": "external_account", "audience": "x"}), "no service account", "as Google made it"),
    (SERVICE, json.dumps({"type": "impersonated_service_account", "service_account_impersonation_url": IMPERSONATE}),
     ".json: ", "as Google made it"),
    (USER, json.dumps({**USER, "refresh_token": ""}), "no refresh_token", SIGN_IN),
    (USER, json.dumps({**USER, "account": "x@corp.example"}), "sign-in of x@corp.example", f"{SIGN_IN} as {MAILBOX}"),
]  # fmt: skip


@pytest.mark.parametrize(("info", "text", "summary", "fix"), FILES)
async def test_a_file_that_will_not_do_is_told_and_corrected_without_a_restart(
    tmp_path: Path, info: dict[str, Any], text: str, summary: str, fix: str
) -> None:
    async with open_way(tmp_path, info) as way:
        way.settings.file.write_text(text)
        outcome = await way.one()
        assert (outcome.verdict, outcome.enhanced) == (Verdict.MISCONFIGURED, "4.7.0")
        check = await way.backend.check()
        assert summary in check.summary
        assert fix in check.fix
        assert way.web.requests == []
        assert "hunter2" not in f"{outcome} {check}"
        stored(tmp_path, info)
        way.clock.advance(60)
        assert (await way.one()).verdict is Verdict.SENT


async def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    async with open_way(tmp_path) as way:
        way.settings.file.unlink()
        check = await way.backend.check()
    assert "No such file" in check.summary
    assert "can read" in check.fix


# -- the sign-in -----------------------------------------------------------------------------------------------------


async def test_a_rotated_refresh_token_is_kept(tmp_path: Path) -> None:
    async with open_way(tmp_path, authorized_user_info(note="mine")) as way:
        way.fake.more = {"refresh_token": "1//second-hunter2"}
        assert (await way.one()).verdict is Verdict.SENT
        path = way.settings.file
        assert json.loads(path.read_text()) == authorized_user_info(note="mine", refresh_token="1//second-hunter2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]


async def test_a_rotated_refresh_token_that_cannot_be_written_lives_on_in_memory(tmp_path: Path) -> None:
    tokens = [REFRESH, "1//second-hunter2", "1//third-hunter2"]
    async with open_way(tmp_path, authorized_user_info()) as way:
        with mock.patch("gateway.backends.shared.stores.write_whole", side_effect=OSError(30, "Read-only file system")):
            for now, following in pairwise([*tokens, None]):
                way.fake.refresh_token, way.fake.more = str(now), {"refresh_token": following}
                way.fake.tokens.clear()
                assert (await way.one()).verdict is Verdict.SENT
        assert [request["refresh_token"] for request in way.fake.token_requests] == tokens
        assert {event for event, _ in way.signals.warnings} == {"refresh_token_not_saved"}
        assert all("Read-only file system" in str(fields["detail"]) for _, fields in way.signals.warnings)


@pytest.mark.parametrize(
    ("info", "more", "ends"),
    [
        ({}, {}, []),
        ({"refresh_token_expires_at": "2026-11-27T12:00:00+00:00"}, {}, [START + timedelta(days=7)]),
        ({"refresh_token_expires_at": "2026-11-27T12:00:00+00:00"}, {"refresh_token_expires_in": 3600},
         [START + timedelta(hours=1)]),
        ({}, {"refresh_token_expires_in": "604800"}, [START + timedelta(days=7)]),
        ({"refresh_token_expires_at": "soon"}, {}, []),
        ({"refresh_token_expires_at": 5}, {}, []),
    ],
)  # fmt: skip
async def test_the_end_of_a_sign_in_is_a_metric(
    tmp_path: Path, info: dict[str, Any], more: dict[str, Any], ends: list[datetime]
) -> None:
    async with open_way(tmp_path, authorized_user_info(**info)) as way:
        way.fake.more = more
        assert (await way.one()).verdict is Verdict.SENT
        assert way.signals.credential == [end.timestamp() for end in ends]


@pytest.mark.parametrize(
    ("granted", "ok"),
    [
        (f"openid {SCOPE}", True),
        ("https://mail.google.com/", True),
        ("https://www.googleapis.com/auth/gmail.modify", True),
        ("openid https://www.googleapis.com/auth/userinfo.email", False),
        ("https://www.googleapis.com/auth/gmail.readonly", False),
    ],
)
async def test_a_sign_in_must_have_allowed_sending(tmp_path: Path, granted: str, ok: bool) -> None:
    """On the consent screen every permission is a box of its own."""
    async with open_way(tmp_path, authorized_user_info()) as way:
        way.fake.granted = granted
        check = await way.backend.check()
        assert check.ok == ok
        assert ok or ("tick the box" in check.fix and granted in check.summary)
        assert check.facts["scopes"] == granted


async def test_the_sign_in_of_another_account_does_not_send_as_the_first(tmp_path: Path) -> None:
    """Gmail would put the other one's address into From, and answer 200."""
    async with open_way(tmp_path, authorized_user_info(), mailbox="me") as way:
        stored(tmp_path, authorized_user_info(account="other@corp.example"))
        outcome = await way.one()
        assert outcome.verdict is Verdict.MISCONFIGURED
        assert f"sign-in of other@corp.example, not of {MAILBOX}" in outcome.detail


async def test_closing_does_not_wait_for_a_token_endpoint_that_hangs(tmp_path: Path) -> None:
    async with open_way(tmp_path) as way:
        way.fake.token_answers = [kit.hang]
        waiting = asyncio.create_task(way.send("b@x.example"))
        await until(lambda: bool(way.fake.token_requests))
        await way.backend.aclose()
        outcome = (await waiting)["b@x.example"]
        assert (outcome.verdict, outcome.code) == (Verdict.DEFERRED, None)


# -- workload identity -----------------------------------------------------------------------------------------------


class Elsewhere(BlockingHttp):
    """Sends what is meant for Google to the fake, the host as the first part of the path."""

    def __init__(self, web: Web, context: Context) -> None:
        super().__init__(context.fetch, asyncio.get_running_loop())
        self._web = web

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        parts = urlsplit(url)
        return super().request(method, f"{self._web.url}/{parts.netloc}{parts.path}", headers=headers, content=content)


class Cloud:
    """STS, IAM and the token endpoint as workload identity goes through them."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.claims: dict[str, Any] = {}
        self.denied = False

    def __call__(self, request: Request) -> bytes:
        self.paths.append(request.path)
        answers = {
            "/sts.googleapis.com/v1/token": self._sts,
            "/oauth2.googleapis.com/token": self._token,
            "/proxy.example/token": self._token,
            f"/iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{SA}:signJwt": self._sign,
            f"/iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{SA}:generateAccessToken": self._access,
        }
        return answers[request.path](request)

    def _sts(self, request: Request) -> bytes:
        asked = form(request.body)
        assert asked["subject_token"] == "workload-jwt"
        assert asked["scope"] == "https://www.googleapis.com/auth/iam"
        return http(200, {"access_token": "federated", "expires_in": 3600, "token_type": "Bearer"})

    def _sign(self, request: Request) -> bytes:
        if self.denied:
            text = f"Permission 'iam.serviceAccounts.signJwt' denied on resource {SA}"
            return http(403, {"error": {"code": 403, "message": text, "status": "PERMISSION_DENIED"}})
        assert request.headers["authorization"] == "Bearer federated"
        self.claims = json.loads(json.loads(request.body)["payload"])
        return http(200, {"signedJwt": "a.b.c"})

    def _access(self, request: Request) -> bytes:
        assert request.headers["authorization"] == "Bearer federated"
        return http(200, {"accessToken": "plain", "expireTime": "2030-01-01T00:00:00Z"})

    def _token(self, request: Request) -> bytes:
        asked = form(request.body)
        if asked["grant_type"] == "refresh_token":
            return http(200, {"access_token": "federated", "expires_in": 3600})
        assert asked == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "a.b.c"}
        return http(200, {"access_token": "delegated", "expires_in": 1800})


def workload(folder: Path) -> dict[str, Any]:
    token = folder / "workload.jwt"
    token.write_text("workload-jwt")
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(token)},
        "service_account_impersonation_url": IMPERSONATE,
    }


def impersonated() -> dict[str, Any]:
    source = authorized_user_info(account=None)
    return {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": IMPERSONATE,
        "source_credentials": source,
        "delegates": [],
    }


async def asked_for(
    folder: Path, info: dict[str, Any], cloud: Cloud, mailbox: str = MAILBOX, token_url: str | None = None
) -> AccessToken:
    async with Web(cloud) as web, kit.context(folder) as context:
        path = stored(folder, info)
        source = GoogleTokens("gm", path, mailbox, context, user=False, many=False, token_url=token_url)
        return await asyncio.to_thread(source, Elsewhere(web, context))


async def test_a_workload_acts_as_the_mailbox_without_any_key(tmp_path: Path) -> None:
    """Its token is exchanged, IAM signs the assertion of the service account with the mailbox as its subject."""
    cloud = Cloud()
    token = await asked_for(tmp_path, workload(tmp_path), cloud)
    assert token == AccessToken("delegated", START + timedelta(seconds=1800))
    assert [path.rpartition("/")[2] for path in cloud.paths] == ["token", f"{SA}:signJwt", "token"]
    assert cloud.claims.pop("exp") - cloud.claims.pop("iat") == 3600
    assert cloud.claims == {"iss": SA, "sub": MAILBOX, "scope": SCOPE, "aud": AUDIENCE}


async def test_impersonation_by_a_sign_in_acts_as_the_mailbox(tmp_path: Path) -> None:
    cloud = Cloud()
    assert (await asked_for(tmp_path, impersonated(), cloud)).value == "delegated"
    assert cloud.claims["sub"] == MAILBOX


async def test_the_secrets_behind_an_impersonation_are_not_told(tmp_path: Path) -> None:
    async with open_way(tmp_path, impersonated()) as way:
        way.fake.token_answers = [said("invalid_client", f"not {CLIENT_SECRET}")]
        outcome = await way.one()
    assert (outcome.verdict, outcome.detail) == (
        Verdict.MISCONFIGURED,
        "Google refuses a token: invalid_client: not ***",
    )


async def test_without_a_mailbox_the_service_account_itself_is_looked_at(tmp_path: Path) -> None:
    assert (await asked_for(tmp_path, workload(tmp_path), Cloud(), "")).value == "plain"


async def test_a_workload_that_may_not_act_as_the_service_account_is_told_which_role(tmp_path: Path) -> None:
    cloud = Cloud()
    cloud.denied = True
    with pytest.raises(NoAnswer) as error:
        await asked_for(tmp_path, workload(tmp_path), cloud)
    assert error.value.outcome.verdict is Verdict.MISCONFIGURED
    assert f"act as {SA}" in error.value.outcome.fix
    assert "Service Account Token Creator" in error.value.outcome.fix


async def test_a_workload_without_its_own_token_is_told_so(tmp_path: Path) -> None:
    info = workload(tmp_path)
    (tmp_path / "workload.jwt").unlink()
    with pytest.raises(NoAnswer, match=r"gives no token: File .* was not found") as error:
        await asked_for(tmp_path, info, Cloud())
    assert error.value.outcome.verdict is Verdict.MISCONFIGURED


async def test_token_url_also_replaces_the_one_built_into_google_auth(tmp_path: Path) -> None:
    cloud = Cloud()
    await asked_for(tmp_path, workload(tmp_path), cloud, token_url="https://proxy.example/token")
    assert cloud.paths[-1] == "/proxy.example/token"
    assert cloud.claims["aud"] == AUDIENCE
