"""Tokens of Microsoft Entra ID by msal: client secret, certificate, sign-in by device code, managed identity.

All of it blocks and belongs into a thread. Every token is asked for by an msal client of its own: a forced refresh
really asks again, and nothing of what msal keeps outlives the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.backends.shared.base import NoAnswer, refused, safe
from gateway.backends.shared.oauth import AccessToken, BlockingHttp, TokenSource, unavailable
from gateway.backends.shared.table import ANY, Row
from gateway.clock import Clock
from gateway.config.finding import Ending, Examined, Finding
from gateway.files import write_whole
from gateway.model import Verdict
from gateway.strangers import lenient_json

# Since the last use of the refresh token (learn.microsoft.com/entra/identity-platform/refresh-tokens).
_SIGN_IN_LASTS = timedelta(days=90)
_USUAL, _LONGEST = 3600, 24 * 3600  # seconds that a token lasts if nobody says so, and that it is believed to last
_SHORTEST = 2048  # bits of an RSA key (learn.microsoft.com/entra/identity-platform/certificate-credentials)
# What msal raises at an answer that makes no sense.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RuntimeError)
_UNHEARD = 10  # questions in a row without an answer, then a sign-in is given up
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\s*", re.DOTALL)
_SIGN_IN = "sign in again: gateway auth microsoft --backend {name}"
_SECRET = "make a new client secret (Certificates & secrets) and put its Value, not its Secret ID, into client_secret"  # noqa: S105
_CONSENT = "grant the application its permissions with admin consent, or by RBAC for Applications in Exchange"


def _row(codes: str, fix: str) -> Row:
    """For an AADSTS code, or else for the error; "" for all that are left."""
    return Row(ANY, Verdict.MISCONFIGURED, "4.7.0", code=tuple(codes.split()) or "", fix=fix)


# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
ROWS = (
    _row("7000215", _SECRET),
    _row("7000222", f"the client secret has expired: {_SECRET}"),
    _row("700027", "upload the certificate of certificate_file to the application (Certificates & secrets)"),
    _row("700024", "set the clock of this machine (timedatectl shows it): Entra sees another time"),
    _row("700016", "check client_id, and that tenant is the one where the application is registered"),
    _row("7000218", "allow public client flows: Authentication, Settings, in the application's registration"),
    _row("90002", "there is no such tenant: check tenant and cloud"),
    _row("53003", "a Conditional Access policy forbids it: exclude this application or sign-in"),
    _row("invalid_client", "check client_id and client_secret or certificate_file"),
    _row("unauthorized_client", "check client_id and tenant, and the kinds of accounts that the application allows"),
    _row("invalid_grant interaction_required consent_required", _CONSENT),
    _row("invalid_scope invalid_resource", "check cloud: it chooses whom the permission is asked of"),
)
_OTHERWISE = _row("", "check tenant, client_id and the credential of backends.{name}")
# Device logins have a way of their own out of most of them, and a managed identity one for all.
_LOGIN = (_row("invalid_grant interaction_required consent_required", _SIGN_IN), *ROWS)
_MANAGED = _row("", "give this machine a managed identity in Azure, and client_id if it has several")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks for tokens, whom (``authority`` includes the tenant), and for what.

    One of ``secret``, ``certificate``, ``store`` (what a device login left) and ``managed`` says by what right.
    """

    name: str
    authority: str
    client_id: str
    resource: str
    scopes: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)
    certificate: Path | None = None
    store: Path | None = None
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
                result = _application(identity, client, ends)
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
        """Who has signed in, "" for nobody yet. Raises NoAnswer, and OSError if it cannot be stored.

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
        write_whole(self._identity.store, self._cache.serialize().encode())
        return signed_in_as(self._identity.store) or "somebody"


def _msal() -> Any:
    """Loaded by whoever needs it first, in his thread: it takes half a second."""
    import msal

    return msal


def _stored(store: Path) -> tuple[Any, list[dict[str, Any]]]:
    """What msal keeps of a sign-in, and the accounts in it. Raises OSError, and anything for a damaged file."""
    cache = _msal().SerializableTokenCache()
    cache.deserialize(store.read_text())
    return cache, list(cache.search("Account"))


def signed_in_as(store: Path) -> str:
    """Whose sign-in is stored there, "" for nobody's. Blocks."""
    try:
        return next((str(account.get("username") or "") for account in _stored(store)[1]), "")
    except (OSError, *_GARBAGE):
        return ""


def _client(kind: str, identity: Identity, http: _Http, **more: Any) -> Any:
    """An application of msal, which begins by asking what stands behind the authority. Raises NoAnswer."""
    # Without instance_discovery=False msal asks the global cloud about every other one.
    common = {"authority": http.authority, "instance_discovery": False, "http_client": http}
    try:
        return getattr(_msal(), kind)(identity.client_id, **common, **more)
    except _GARBAGE as error:
        raise _refused(identity, f"{identity.authority}: {error}", "90002") from None


def _application(identity: Identity, http: _Http, ends: Callable[[float], None]) -> dict[str, Any]:
    credential = _certificate(identity, identity.certificate, ends) if identity.certificate else identity.secret
    app = _client("ConfidentialClientApplication", identity, http, client_credential=credential)
    found: dict[str, Any] = app.acquire_token_for_client([f"{identity.resource}/.default"])
    return found


def _certificate(identity: Identity, path: Path, ends: Callable[[float], None]) -> dict[str, str]:
    """For msal: given the certificate and no thumbprint it signs with PS256 and names it by x5t#S256."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = list(_PEM.finditer(path.read_text("ascii")))
        blocks = {match[1].rpartition(" ")[2]: match[0] for match in reversed(found)}  # of a chain the first counts
        certificate = x509.load_pem_x509_certificate(blocks["CERTIFICATE"].encode())
        key = load_pem_private_key(blocks["KEY"].encode(), None)
        if not isinstance(key, RSAPrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the key is not the RSA key of the certificate")
    except KeyError as error:
        fix = f"cat the certificate and its key, both PEM, into backends.{identity.name}.certificate_file"
        raise refused(f"{path}: no {error} in it", fix) from None
    except TypeError:
        fix = f"take the password off (openssl pkey) for backends.{identity.name}.certificate_file"
        raise refused(f"{path}: the key needs a password", fix) from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise refused(f"{path}: {said}", f"correct backends.{identity.name}.certificate_file") from None
    ends(certificate.not_valid_after_utc.timestamp())
    return {"private_key": blocks["KEY"], "public_certificate": blocks["CERTIFICATE"]}


def examine(identity: Identity) -> Examined:
    """What is wrong with ``certificate_file``, and when it ends; whether anybody has signed in. Blocks; asks nobody."""
    if identity.certificate is not None:
        from cryptography import x509

        keys = ("certificate_file",)
        try:
            pair = _certificate(identity, identity.certificate, lambda _: None)
        except NoAnswer as error:
            yield Finding(keys, f"{error}; {error.outcome.fix}")
            return
        leaf = x509.load_pem_x509_certificate(pair["public_certificate"].encode())
        if (bits := getattr(leaf.public_key(), "key_size", _SHORTEST)) < _SHORTEST:
            text = f"{identity.certificate}: Microsoft takes RSA keys from {_SHORTEST} bits, this has {bits}"
            yield Finding(keys, text)
        yield Ending(keys, "the certificate", leaf.not_valid_after_utc, leaf.not_valid_before_utc)
    if identity.store is not None and not identity.store.exists():
        text = f"nobody has signed in yet: gateway auth microsoft --backend {identity.name}"
        yield Finding(("device_login",), text, fatal=False)


def _signed_in(identity: Identity, store: Path, http: _Http) -> dict[str, Any]:
    try:
        cache, _ = _stored(store)
    except FileNotFoundError:
        raise refused("nobody has signed in yet", _SIGN_IN.format(name=identity.name).replace(" again", "")) from None
    except (OSError, *_GARBAGE) as error:
        said = getattr(error, "strerror", None) or "damaged"
        raise refused(f"{store}: {said}", _SIGN_IN.format(name=identity.name)) from None
    app = _client("PublicClientApplication", identity, http, token_cache=cache)
    result: dict[str, Any] | None = None
    if accounts := app.get_accounts():
        result = app.acquire_token_silent_with_error(list(identity.scopes), accounts[0], force_refresh=True)
    if cache.has_state_changed:  # every refresh brings a new refresh token
        try:
            write_whole(store, cache.serialize().encode())
        except OSError as error:
            raise unavailable(f"{store}: {error.strerror}", f"see that the service can write {store}") from None
    return result or {"error": "interaction_required", "error_description": "no sign-in for this application is stored"}


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
    rows = (_MANAGED,) if identity.managed else _LOGIN if identity.store else ROWS
    fitting = (row for code in codes for row in rows if row.fits(0, code, ""))
    row = next(fitting, _OTHERWISE)
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
        return SimpleNamespace(status_code=answer.status, text=text, headers=dict(answer.headers))
