"""Tokens of Microsoft Entra ID by msal: client secret, certificate, sign-in by device code, managed identity.

All of it blocks and belongs into a thread. Every token is asked for by an msal client of its own: a forced refresh
really asks again, and nothing of what msal keeps outlives the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.backends.microsoft import certificate, errors, federated
from gateway.backends.microsoft.certificate import Pair
from gateway.backends.shared.base import NoAnswer, refused, safe
from gateway.backends.shared.oauth import AccessToken, BlockingHttp, TokenSource, unavailable
from gateway.backends.shared.stores import Store, Unkept, Unreadable
from gateway.clock import Clock
from gateway.config.finding import Examined, Finding
from gateway.strangers import lenient_json

# Since the last use of the refresh token (learn.microsoft.com/entra/identity-platform/refresh-tokens).
_SIGN_IN_LASTS = timedelta(days=90)
_USUAL, _LONGEST = 3600, 24 * 3600  # seconds that a token lasts if nobody says so, and that it is believed to last
# What msal raises at an answer that makes no sense.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RuntimeError)
_UNHEARD = 10  # questions in a row without an answer, then a sign-in is given up


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks for tokens, whom (``authority`` includes the tenant), and for what.

    One of ``secret``, ``certificate``, ``federated`` (a file with a token of another issuer), ``store`` (of what a
    device login left) and ``managed`` says by what right. ``pair`` says which key counts just now (blocks; raises
    certificate.Unusable, Unkept) where that is not simply the one in the file of ``certificate``.
    """

    name: str
    authority: str
    client_id: str
    resource: str
    scopes: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)
    certificate: certificate.Source | None = None
    pair: Callable[[], Pair] | None = None
    federated: Path | None = None
    store: Store | None = None
    managed: bool = False


def token_source(identity: Identity, clock: Clock, credential_ends: Callable[[str, float], None]) -> TokenSource:
    """What gets this identity's tokens. ``credential_ends`` is told when the right behind them does."""
    ends = partial(credential_ends, identity.name)

    def get(http: BlockingHttp) -> AccessToken:
        client = _Http(http, identity)
        try:
            if identity.managed:
                result = _managed(identity, client)
            elif identity.store:
                result = _signed_in(identity, identity.store, client)
            else:
                result = _application(identity, client, ends, clock.now())
            if "access_token" not in result:
                raise _failure(identity, result)
            lasts = timedelta(seconds=min(int(result.get("expires_in", _USUAL)), _LONGEST))
            token = AccessToken(result["access_token"], clock.now() + lasts)
        except _GARBAGE as error:
            if identity.managed:
                raise _refused(identity, str(error)) from None
            fix = f"check authority of backends.{identity.name}: what answers there gives no token that can be used"
            raise unavailable(f"no usable token in the answer: {type(error).__name__}", fix) from None
        if identity.store:
            ends((clock.now() + _SIGN_IN_LASTS).timestamp())
        return token

    return get


class DeviceLogin:
    """A person signs in with any browser (RFC 8628) and so lets this backend send. Both methods block."""

    def __init__(self, identity: Identity, http: BlockingHttp) -> None:
        self._identity = identity
        self._http = _Http(http, identity)
        self._flow: dict[str, Any] = {}
        self._unheard = 0

    def start(self) -> str:
        """What the person has to do, in the provider's words. Raises NoAnswer."""
        self._cache = _msal().SerializableTokenCache()
        self._app = _client("PublicClientApplication", self._identity, self._http, token_cache=self._cache)
        try:
            self._flow = self._app.initiate_device_flow(list(self._identity.scopes))
        except _GARBAGE as error:
            raise _refused(self._identity, f"{self._identity.authority}: {error}", "90002") from None
        if "user_code" not in self._flow:
            raise _failure(self._identity, self._flow)
        self._flow["interval"] = max(1, self._flow["interval"])  # with 0 msal would ask without end
        return safe(str(self._flow.get("message") or f"{self._flow['verification_uri']} {self._flow['user_code']}"))

    @property
    def interval(self) -> float:
        """Seconds to wait before the next ``finish``."""
        return float(self._flow["interval"])

    def finish(self) -> str:
        """Who has signed in, "" for nobody yet. Raises NoAnswer, and Unkept if it cannot be stored.

        A question that gets no answer is asked again: the person may just be entering the code.
        """
        try:
            result = self._app.acquire_token_by_device_flow(self._flow, exit_condition=lambda _: True)
        except NoAnswer:
            self._unheard += 1
            if self._unheard >= _UNHEARD:
                raise
            return ""
        self._unheard = 0
        if result.get("error") in ("authorization_pending", "slow_down"):
            return ""
        if "access_token" not in result:
            raise _failure(self._identity, result)
        assert self._identity.store
        self._identity.store.put(self._cache.serialize().encode())
        return signed_in_as(self._identity.store) or "somebody"


def _msal() -> Any:
    """Loaded by whoever needs it first, in his thread: it takes half a second."""
    import msal

    return msal


def _cache_of(kept: bytes) -> Any:
    """What msal keeps of a sign-in. Raises one of _GARBAGE for what is damaged."""
    cache = _msal().SerializableTokenCache()
    cache.deserialize(kept.decode())
    list(cache.search("Account"))
    return cache


def signed_in_as(store: Store) -> str:
    """Whose sign-in is stored there, "" for nobody's. Blocks."""
    try:
        kept = store.read()
        accounts = _cache_of(kept).search("Account") if kept is not None else ()
        return next((str(account.get("username") or "") for account in accounts), "")
    except (Unreadable, Unkept, *_GARBAGE):
        return ""


def _client(kind: str, identity: Identity, http: _Http, **more: Any) -> Any:
    """An application of msal, which begins by asking what stands behind the authority. Raises NoAnswer."""
    # Without instance_discovery=False msal asks the global cloud about every other one.
    common = {"authority": http.authority, "instance_discovery": False, "http_client": http}
    try:
        return getattr(_msal(), kind)(identity.client_id, **common, **more)
    except _GARBAGE as error:
        why = str(error).partition(". ")[0]  # it goes on with examples
        raise _refused(identity, f"{identity.authority}: {why}", "90002") from None


def _application(identity: Identity, http: _Http, ends: Callable[[float], None], now: datetime) -> dict[str, Any]:
    credential: Any = identity.secret
    if identity.certificate:
        credential = _signer(identity, identity.certificate, ends)
    elif identity.federated:
        credential = _federated(identity, identity.federated, now)
    app = _client("ConfidentialClientApplication", identity, http, client_credential=credential)
    found: dict[str, Any] = app.acquire_token_for_client([f"{identity.resource}/.default"])
    return found


def _signer(identity: Identity, source: certificate.Source, ends: Callable[[float], None]) -> dict[str, str]:
    """For msal: given the certificate and no thumbprint it signs with PS256 and names it by x5t#S256."""
    try:
        pair = identity.pair() if identity.pair else certificate.read(source)
    except Unkept as error:
        raise unavailable(str(error), error.fix) from None
    except certificate.Unusable as error:
        raise refused(str(error), f"{error.fix} (backends.{identity.name}.{error.setting})") from None
    ends(pair.ends.timestamp())
    return {"private_key": pair.private_key, "public_certificate": pair.certificate}


def _federated(identity: Identity, file: Path, now: datetime) -> dict[str, Callable[[], str]]:
    try:
        token = federated.read(file, now)
    except federated.Unusable as error:
        raise refused(str(error), f"{error.fix} (backends.{identity.name}.federated_token_file)") from None
    return {"client_assertion": lambda: token}


def examine(identity: Identity) -> Examined:
    """What is wrong with its files, and when they end; whether anybody has signed in. Blocks; asks nobody."""
    if identity.certificate is not None:
        found = certificate.examine(identity.certificate)
        yield from found if identity.pair is None else (one for one in found if isinstance(one, Finding))
    if identity.federated is not None:
        yield from federated.examine(identity.federated)
    if identity.store is not None:
        with suppress(Unreadable, Unkept):  # told when a token is needed
            if identity.store.read() is None:
                text = f"nobody has signed in yet: gateway auth microsoft --backend {identity.name}"
                yield Finding(("device_login",), text, fatal=False)


def _signed_in(identity: Identity, store: Store, http: _Http) -> dict[str, Any]:
    try:
        kept = store.read()
        result, renewed = _refreshed(identity, store, kept, http)
        if "access_token" not in result and (newer := store.read()) != kept:
            # Somebody has signed in meanwhile, or another instance has got the next refresh token for this one.
            kept = newer
            result, renewed = _refreshed(identity, store, kept, http)
        if renewed:  # every refresh brings a new refresh token
            store.write(renewed, kept)  # or what is there by now is newer, and good for the next time
    except Unreadable as error:
        raise refused(str(error), errors.SIGN_IN.format(name=identity.name)) from None
    except Unkept as error:
        raise unavailable(str(error), error.fix) from None
    return result


def _refreshed(identity: Identity, store: Store, kept: bytes | None, http: _Http) -> tuple[dict[str, Any], bytes]:
    """The answer to a forced refresh, and what is to be kept then, b"" where that is as before."""
    if kept is None:
        raise refused("nobody has signed in yet", errors.SIGN_IN.format(name=identity.name).replace(" again", ""))
    try:
        cache = _cache_of(kept)
    except _GARBAGE:
        raise Unreadable(f"{store.shown}: damaged") from None
    app = _client("PublicClientApplication", identity, http, token_cache=cache)
    result: dict[str, Any] | None = None
    if accounts := app.get_accounts():
        result = app.acquire_token_silent_with_error(list(identity.scopes), accounts[0], force_refresh=True)
    renewed = cache.serialize().encode() if cache.has_state_changed else b""
    none = {"error": "interaction_required", "error_description": "no sign-in for this application is stored"}
    return result or none, renewed


def _managed(identity: Identity, http: _Http) -> dict[str, Any]:
    own = _msal().UserAssignedManagedIdentity(client_id=identity.client_id) if identity.client_id else None
    client = _msal().ManagedIdentityClient(own or _msal().SystemAssignedManagedIdentity(), http_client=http)
    found: dict[str, Any] = client.acquire_token_for_client(resource=identity.resource)
    return found


def _failure(identity: Identity, result: Mapping[str, Any]) -> NoAnswer:
    """The words of the identity provider, and what to do about them."""
    error = str(result.get("error") or "no token")
    words = str(result.get("error_description") or "").partition("\r\n")[0]
    detail = safe(f"{error}: {words}", identity.secret)
    if error == "temporarily_unavailable":
        return unavailable(detail)
    given = result.get("error_codes")
    codes = [str(code) for code in (given if isinstance(given, list) and given else re.findall(r"AADSTS(\d+)", words))]
    return _refused(identity, detail, *codes, error)


def _refused(identity: Identity, detail: str, *codes: str) -> NoAnswer:
    """What is wrong by the first of ``codes`` that is known."""
    kind = "managed" if identity.managed else "login" if identity.store else ""
    row = errors.first("federated" if identity.federated else kind, codes)
    return NoAnswer(row.outcome("gateway", None, safe(detail), {"name": identity.name}))


class _Http:
    """msal's http_client on the house's own. A provider that is away ends msal's work at once, by NoAnswer."""

    def __init__(self, http: BlockingHttp, identity: Identity) -> None:
        self._http = http
        # msal knows only https, so an authority on this machine without TLS is called so towards it.
        self.authority = re.sub("^http:", "https:", identity.authority)
        self._plain = urlsplit(identity.authority).netloc if identity.authority.startswith("http:") else None

    def get(self, url: str, params: Mapping[str, str] | None = None, headers: Any = None, **_: Any) -> SimpleNamespace:
        return self._request("GET", f"{url}?{urlencode(params)}" if params else url, headers, None)

    def post(self, url: str, data: Any = None, headers: Any = None, params: Any = None, **_: Any) -> SimpleNamespace:
        form = {"content-type": "application/x-www-form-urlencoded"}
        body = urlencode({name: value for name, value in (data or {}).items() if value is not None}).encode()
        return self._request("POST", f"{url}?{urlencode(params)}" if params else url, {**form, **(headers or {})}, body)

    def _request(self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes | None) -> SimpleNamespace:
        host = urlsplit(url).netloc
        if host == self._plain:
            url = re.sub("^https:", "http:", url)
        answer = self._http.request(method, url, headers=headers, content=body)
        if answer.status in (408, 429) or answer.status >= 500:
            raise unavailable(f"{host}: HTTP {answer.status}")
        if (method == "POST" or answer.status == 200) and not lenient_json(answer.body):
            raise unavailable(f"{host}: HTTP {answer.status} and no JSON")  # msal would log the whole answer
        text = answer.body.decode("utf-8", "replace")
        if self._plain and method == "GET":  # it tells the truth about itself, which msal would refuse
            text = re.sub(rf"\bhttp:(?=\\?/\\?/{re.escape(self._plain)}\b)", "https:", text)
        return SimpleNamespace(status_code=answer.status, text=text, headers=dict(answer.headers))
