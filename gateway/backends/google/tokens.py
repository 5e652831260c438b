"""Access tokens of Google, by google-auth: service accounts, workload identity, sign-ins of users."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from gateway.backends.google.errors import NO_USER, SERVICE, SIGN_IN, USER
from gateway.backends.google.rotation import Rotation
from gateway.backends.shared.base import Context, NoAnswer, refused, safe
from gateway.backends.shared.oauth import AccessToken, BlockingHttp, unavailable
from gateway.backends.shared.stores import Unkept, Unreadable
from gateway.backends.shared.table import first
from gateway.config.finding import Ending, Examined, Finding
from gateway.fetch import Answer
from gateway.model import Verdict
from gateway.pem import complaint
from gateway.strangers import lenient_json

SCOPE = "https://www.googleapis.com/auth/gmail.send"
TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105
FULL = "https://mail.google.com/"  # the only one with which a mailbox logs in over SMTP
_SENDING = {SCOPE, FULL, *(f"https://www.googleapis.com/auth/gmail.{name}" for name in ("compose", "modify"))}
_CLOUD = "https://www.googleapis.com/auth/cloud-platform"  # what a workload needs to act as the service account
_USER_FIELDS = ("refresh_token", "client_id", "client_secret")
_SECRETS = ("refresh_token", "client_secret", "private_key")
_SETTINGS = {True: "authorized_user_file", False: "service_account_file"}  # by whether a user has signed in
_TYPES = {True: ("authorized_user",), False: ("service_account", "external_account", "impersonated_service_account")}
_LOADING = threading.Lock()  # so that a key is read once, however many mailboxes need a token at this moment
# What google-auth raises at an answer that makes no sense.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
_PRINCIPAL = re.compile(r"/([^/]+@[^/]+):generateAccessToken$")
_RETRY = r"^(internal_failure|server_error|temporarily_unavailable)\b"


def read_file(path: Path) -> dict[str, Any]:
    """The JSON object in a file of credentials. Blocks. Raises NoAnswer, whose text never quotes the file."""
    try:
        info = lenient_json(path.read_bytes())
    except OSError as error:
        raise refused(f"{path}: {error.strerror}", f"see that the service can read {path}") from None
    if "installed" in info or "web" in info:
        fix = f"sign in with it: gateway auth google --client-file {path}"
        if "installed" not in info:
            fix = "make a Desktop client instead: gateway auth google --client-file CLIENT"
        fix += " --out FILE, and set authorized_user_file: FILE"
        raise refused(f"{path} is an OAuth client, neither a sign-in nor the key of a service account", fix)
    if not isinstance(info.get("type"), str):
        raise refused(f"{path} is no JSON file of Google credentials", "put the downloaded JSON file there, unchanged")
    return info


def read_credentials(name: str, path: Path, mailbox: str, *, user: bool) -> dict[str, Any]:
    """What backend ``name`` needs to send as ``mailbox``: a user's sign-in, or else a service's. Blocks.

    Raises NoAnswer.
    """
    info = read_file(path)
    if info["type"] not in _TYPES[user]:
        fix = f"{_SETTINGS[user]} needs one of type {' or '.join(_TYPES[user])}"
        if info["type"] in _TYPES[not user]:
            fix = f"name it as {_SETTINGS[not user]} in backends.{name}"
        raise refused(f"{path} holds credentials of type {info['type']}", fix)
    if user and (missing := [field for field in _USER_FIELDS if not info.get(field)]):
        raise refused(f"{path} has no {', '.join(missing)}", SIGN_IN.format(name=name))
    account = str(info.get("account") or "")
    if user and account and mailbox and account.lower() != mailbox.lower():
        fix = f"{SIGN_IN.format(name=name)} as {mailbox}, or correct backends.{name}.mailbox"
        raise refused(f"{path} is the sign-in of {account}, not of {mailbox}", fix)
    return info


def examine(name: str, path: Path, mailbox: str, *, user: bool) -> Examined:
    """What is wrong with the file of credentials, and when its sign-in ends. Blocks; asks nobody."""
    keys = (_SETTINGS[user],)
    try:
        info = read_credentials(name, path, mailbox, user=user)
        if info["type"] == "service_account":
            _account(json.dumps(info, sort_keys=True))
    except NoAnswer as error:
        yield Finding(keys, f"{error}; {error.outcome.fix}")
    except Exception as error:  # whatever a parser says of a damaged file
        text = safe(f"{path}: {error}")
        yield Finding(keys, f"{text}; put the file as Google made it in its place, or make a new one")
    else:
        with suppress(ValueError):  # it says nothing of an end
            ends = datetime.fromisoformat(str(info.get("refresh_token_expires_at") or ""))
            yield Ending(keys, "the sign-in in it", ends if ends.tzinfo else ends.replace(tzinfo=UTC))


class GoogleTokens:
    """A token source that reads ``path`` anew each time: what signs in again only has to replace the file.

    ``mailbox`` is who a service account acts as ("": itself), or whose sign-in it must be ("": anybody's). ``many``
    says that it is one of several: if there is no such user, then that is the message's fault.
    """

    def __init__(
        self, name: str, path: Path, mailbox: str, context: Context, *, user: bool, many: bool, token_url: str | None,
        wanted: str = SCOPE,
    ) -> None:  # fmt: skip
        self.identity = ""
        self.scope = self._wanted = wanted
        self._name = name
        self._path = path
        self._mailbox = mailbox
        self._context = context
        self._user = user
        self._many = many
        self._token_url = token_url
        self._secrets: list[str] = []
        self._client_id = ""
        self._principal = ""  # the service account that a workload acts as
        read = partial(read_file, path)
        self._rotation = Rotation(name, path, context.shared, context.signals, read)

    def __call__(self, http: BlockingHttp) -> AccessToken:
        info = self._read()
        try:
            return self._ask(http, info)
        except NoAnswer as error:
            if not self._user or error.outcome.verdict is Verdict.DEFERRED:
                raise
            # Somebody may have signed in meanwhile, or another instance got the token that has replaced this one.
            newer = self._read()
            if newer["refresh_token"] == info["refresh_token"]:
                raise
        return self._ask(http, newer)

    def _ask(self, http: BlockingHttp, info: dict[str, Any]) -> AccessToken:
        from google.auth.exceptions import GoogleAuthError

        answers: list[dict[str, Any]] = []
        try:
            with _LOADING:
                credentials = self._load(info)
        except Exception as error:  # whatever a parser says of a damaged file
            text = f"{self._path}: {type(error).__name__} {error}"
            raise refused(text, "put the file as Google made it in its place, or make a new one") from None
        asked = self._context.clock.now()
        try:
            credentials.refresh(partial(self._request, http, answers))
            life = timedelta(seconds=min(int(answers[-1].get("expires_in", 3600)), 86400))
            token = AccessToken(credentials.token, asked + life)
        except (GoogleAuthError, *_GARBAGE) as error:
            if answers:
                what = "what answers there is not Google's token endpoint, or not itself"
                fix = f"check backends.{self._name}.token_url: {what}"
                raise unavailable(f"no usable token in the answer: {type(error).__name__}", fix) from None
            raise self._refused(str(error), f"{self._path} gives no token") from None
        if self._user:
            self._signed_in(info, answers[-1], asked)
        return token

    def facts(self) -> dict[str, str]:
        mailbox = self._mailbox or ("me" if self._user else "sender")
        return {"identity": self.identity or "unknown", "mailbox": mailbox, "scopes": self.scope}

    def _request(
        self, http: BlockingHttp, answers: list[dict[str, Any]], url: str, method: str = "GET", body: Any = None,
        headers: Mapping[str, str] | None = None, **_: object,
    ) -> SimpleNamespace:  # fmt: skip
        """google.auth.transport.Request by our own client.

        Only 200 gets through, into ``answers``: with others the library would sleep and try again.
        """
        if self._token_url and url == TOKEN_URL:  # google-auth has that built in where it signs by way of IAM
            url = self._token_url
        content = body.encode() if isinstance(body, str) else body
        answer = http.request(method, url, headers=headers, content=content)
        if answer.status == 200:
            answers.append(lenient_json(answer.body))
            return SimpleNamespace(status=answer.status, headers=answer.headers, data=answer.body)
        said = safe(_said(answer), *self._secrets)
        if answer.status in (408, 429) or answer.status >= 500 or re.search(_RETRY, said):
            raise unavailable(f"{urlsplit(url).netloc}: HTTP {answer.status} {said}")
        raise self._refused(said)

    def _refused(self, said: str, what: str = "Google refuses a token") -> NoAnswer:
        known = {"name": self._name, "file": self._path, "mailbox": self._mailbox or "the account"}
        known |= {"identity": self.identity, "client_id": self._client_id, "scope": self._wanted}
        known["now"] = f"{self._context.clock.now():%Y-%m-%d %H:%M:%SZ}"
        row = first(USER if self._user else SERVICE, 0, "", said)
        if self._many and row is NO_USER:
            row, what = replace(row, verdict=Verdict.REJECTED, enhanced="5.1.8"), f"no mailbox {self._mailbox}"
        return NoAnswer(row.outcome("gateway", None, safe(f"{what}: {said}"), known))

    def _read(self) -> dict[str, Any]:
        info = read_credentials(self._name, self._path, self._mailbox, user=self._user)
        if self._user:
            info["refresh_token"] = self._refresh_token(str(info["refresh_token"]))
        source = info.get("source_credentials")
        holders = (info, source) if isinstance(source, dict) else (info,)
        self._secrets = [str(one[name]) for one in holders for name in _SECRETS if name in one]
        principal = _PRINCIPAL.search(str(info.get("service_account_impersonation_url") or ""))
        self._principal = principal[1] if principal else ""
        names = (info.get("client_email"), info.get("account"), self._principal, info.get("client_id"))
        self.identity = next((str(name) for name in names if name), "unknown")
        self._client_id = str(info.get("client_id") or f"(the Unique ID of {self.identity})")
        return info

    def _refresh_token(self, filed: str) -> str:
        try:
            return self._rotation.now(filed)
        except Unreadable as error:
            raise refused(str(error), SIGN_IN.format(name=self._name)) from None
        except Unkept as error:
            raise unavailable(str(error), error.fix) from None

    def _load(self, info: Mapping[str, Any]) -> Any:
        """The credentials object. The audience of what it signs is Google's own URL, whatever ``token_url`` says."""
        from google.auth import impersonated_credentials

        if info["type"] in ("service_account", "authorized_user"):
            return _simple(info, [self._wanted], self._mailbox, self._token_url)
        if not self._principal:
            raise ValueError("it names no service account; choose service account impersonation when you download it")
        if info["type"] == "impersonated_service_account":
            source = _simple(info["source_credentials"], [_CLOUD], "", None)
        else:
            source = _external({key: info[key] for key in info if key != "service_account_impersonation_url"})
        subject, delegates = self._mailbox or None, info.get("delegates") or []
        made: Any = impersonated_credentials.Credentials
        return made(source, self._principal, [self._wanted], delegates=delegates, subject=subject)

    def _signed_in(self, info: dict[str, Any], last: Mapping[str, Any], asked: datetime) -> None:
        """What the answer says of the sign-in itself: its scopes, its end, its next refresh token."""
        self.scope = str(last.get("scope") or self._wanted)
        if not (_SENDING if self._wanted == SCOPE else {self._wanted}) & set(self.scope.split()):
            fix = f"{SIGN_IN.format(name=self._name)}, and tick the box that allows sending mail"
            raise refused(f"the sign-in may not send mail, only: {self.scope}", fix)
        try:
            seconds = last.get("refresh_token_expires_in")
            given = str(info.get("refresh_token_expires_at") or "")
            ends = asked + timedelta(seconds=int(seconds)) if seconds else datetime.fromisoformat(given)
            self._context.signals.credential_ends(self._name, ends.timestamp())
        except (ValueError, TypeError, OverflowError):
            pass  # it says nothing of an end
        refresh_token = last.get("refresh_token")  # garbage must never take the place of a good one
        if isinstance(refresh_token, str) and refresh_token not in ("", info["refresh_token"]):
            self._rotation.replaced(info, refresh_token)


def _simple(info: Mapping[str, Any], scopes: list[str], subject: str, token_url: str | None) -> Any:
    from google.oauth2 import credentials

    if info["type"] == "service_account":
        made = _account(json.dumps(info, sort_keys=True)).with_scopes(scopes).with_subject(subject or None)
        return made.with_token_uri(token_url) if token_url else made
    user: Any = credentials.Credentials  # its from_authorized_user_info would ignore token_uri
    uri = token_url or info.get("token_uri") or TOKEN_URL
    secrets = {name: info[name] for name in _USER_FIELDS}
    return user(None, token_uri=uri, **secrets)


@lru_cache(maxsize=8)
def _account(info: str) -> Any:
    """Reading an RSA key holds the whole interpreter for some 40 ms: not once for each of a thousand mailboxes."""
    from google.auth.exceptions import MalformedError
    from google.oauth2 import service_account

    account: Any = service_account.Credentials
    found = json.loads(info)
    try:
        return account.from_service_account_info(found)
    except MalformedError:  # which names the fields that are missing
        raise
    except (ValueError, TypeError):
        why = complaint(str(found["private_key"]).encode(), "private key")
        raise ValueError(f"its private_key {why}") from None


def _external(info: Mapping[str, Any]) -> Any:
    """Workload identity. google-auth's own loader would look up the project and needs the package requests for it."""
    source = info.get("credential_source")
    kind: Any
    if str(info.get("subject_token_type")).startswith("urn:ietf:params:aws:"):
        from google.auth import aws as kind
    elif isinstance(source, dict) and "executable" in source:
        from google.auth import pluggable as kind
    else:
        from google.auth import identity_pool as kind
    return kind.Credentials.from_info(info, scopes=[_CLOUD])


def _said(answer: Answer) -> str:
    """``error: subtype: description`` of RFC 6749, 5.2; Google's other APIs put an object there."""
    body = lenient_json(answer.body)
    error = body.get("error")
    if isinstance(error, dict):
        return f"{error.get('status', '')}: {error.get('message', '')}"
    words = [str(body[key]) for key in ("error", "error_subtype", "error_description") if body.get(key)]
    return ": ".join(words) or f"HTTP {answer.status} {answer.body[:100].decode('utf-8', 'replace')}"
