"""SMTP2GO, JS2Mail, JustEmails, MailPass and Cloudflare temp mail, broken in each way that their pages name."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.backends.json_fakes import Js2mailFake, JsonFake, JustemailsFake, MailpassFake, TempMailFake
from tests.backends.kit import Smtp2goFake, http
from tests.broken.kit import Case, Ends, Lab, Settings
from tests.broken.ways import on_the_way

HOSTS = {
    "smtp2go": "api.smtp2go.com",
    "js2mail": "js2mail.dev",
    "justemails": "justemails.app",
    "mailpass": "dev.mailpass.im",
    "temp_mail": "mail.corp.example",
}
FAKES: dict[str, type[JsonFake | Smtp2goFake]] = {
    "smtp2go": Smtp2goFake,
    "js2mail": Js2mailFake,
    "justemails": JustemailsFake,
    "mailpass": MailpassFake,
    "temp_mail": TempMailFake,
}
MANY = 50
NOTHING: Settings = {}


async def api(
    lab: Lab,
    kind: str,
    *answers: bytes,
    own: Settings = NOTHING,
    change: Settings = NOTHING,
) -> Settings:
    """``own`` takes the place of its settings, ``change`` of what the fake holds."""
    fake = FAKES[kind](**change)
    fake.answers = [*answers] * MANY
    web = await lab.web(fake, HOSTS[kind])
    return {"type": kind, "base_url": web.url + fake.root, **_stored(lab, kind, {**fake.settings(), **own})}


def _stored(lab: Lab, kind: str, settings: Settings) -> Settings:
    """Secrets in files."""
    return {f"{name}_file": lab.file(f"{kind}.{name}.{abs(hash(value))}", value) for name, value in settings.items()}


def reached(kind: str) -> Any:
    async def settings(lab: Lab, url: str, more: Settings) -> Settings:
        return {"type": kind, "base_url": url, **_stored(lab, kind, FAKES[kind]().settings()), **more}

    return settings


def said(kind: str, status: int, code: str, text: str, headers: dict[str, str] | None = None) -> bytes:
    """As each of them writes an error."""
    match kind:
        case "smtp2go":
            error = {"error_code": f"E_ApiResponseCodes.{code}", "error": text}
            return http(status, {"request_id": "r-e", "data": error}, headers)
        case "mailpass":
            return http(status, {"success": False, "error": {"code": code, "message": text}}, headers)
        case "temp_mail":
            return http(status, text, headers)
    return http(status, {"error": code, "message": text}, headers)


def case(kind: str, key: str, cause: str, set_up: Any, named: str, cure: str, **more: Any) -> Case:
    given = {"never": "clock|proxy", **more}
    return Case(provider=kind, key=key, cause=cause, set_up=set_up, named=named, cure=cure, **given)


def answers(kind: str, status: int, code: str, text: str, headers: dict[str, str] | None = None) -> Any:
    return partial(_answers, kind=kind, answer=said(kind, status, code, text, headers))


async def _answers(lab: Lab, kind: str, answer: bytes) -> Settings:
    return await api(lab, kind, answer)


def wrong_key(kind: str, value: str) -> Any:
    return partial(api, kind=kind, own={"api_key": value})


async def no_permission(lab: Lab) -> Settings:
    text = "You do not have permission to access this API endpoint"
    answer = said("smtp2go", 400, "ENDPOINT_PERMISSION_DENIED", text)
    return await api(lab, "smtp2go", answer, change={"permissions": ["/email/send"]})


_WAIT = {"Retry-After": "7200"}
CASES: tuple[Case, ...] = (
    case(
        "smtp2go",
        "key",
        "the API key is wrong",
        wrong_key("smtp2go", "api-ffffffffffffffffffffffffffffffff"),
        "INVALID_API_KEY",
        "api_key.*Sending > API Keys",
    ),
    case(
        "smtp2go",
        "permission",
        "the key lacks the permission /email/mime",
        no_permission,
        "email/mime|PERMISSION",
        "Permissions",
    ),
    case(
        "smtp2go",
        "sender",
        "the sender is not verified",
        answers("smtp2go", 400, "API_EXCEPTION", "Unable to verify sender address: the sender domain is not verified"),
        "not verified",
        "Verified Senders",
        ends=Ends.WAITS,
        doctor="",
    ),
    case(
        "smtp2go",
        "plan",
        "the plan is used up, or the account is closed",
        answers("smtp2go", 402, "REQUEST_FAILED", "Your monthly email allowance has been used"),
        "402.*allowance",
        "account|plan",
        doctor="",
    ),
    case(
        "smtp2go",
        "busy",
        "too many requests",
        answers("smtp2go", 429, "RATE_LIMITED", "Rate limit exceeded", _WAIT),
        "429.*Rate limit",
        "",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "smtp2go",
        "large",
        "the message is too large",
        answers("smtp2go", 413, "TOO_LARGE", "Request body is too large"),
        "too large",
        "smaller",
        ends=Ends.REFUSED,
        doctor="",
    ),
    case(
        "js2mail",
        "key",
        "the API key is wrong",
        wrong_key("js2mail", "f" * 32),
        "Unauthorized",
        "valid key into api_key",
    ),
    case(
        "js2mail",
        "quota",
        "the month's mail is used up",
        answers("js2mail", 429, "QUOTA", "Monthly send quota exceeded"),
        "Monthly send quota",
        "month",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "js2mail",
        "sender",
        "the From address is not connected or verified",
        answers("js2mail", 400, "SENDER", "The from address is not verified for this account"),
        "not verified",
        "verify the sender",
        ends=Ends.WAITS,
        doctor="",
    ),
    case(
        "js2mail",
        "large",
        "the message is too large",
        answers("js2mail", 413, "TOO_LARGE", "Payload too large"),
        "too large",
        "smaller",
        ends=Ends.REFUSED,
        doctor="",
    ),
    case(
        "justemails",
        "key",
        "the API key is wrong",
        wrong_key("justemails", "f" * 32),
        "401 UNAUTHORIZED|UNAUTHORIZED",
        "valid key into api_key",
    ),
    case(
        "justemails",
        "permission",
        "the key has no permission to send",
        answers("justemails", 403, "FORBIDDEN", "This key lacks the send permission"),
        "lacks the send permission",
        "permission to send",
        doctor="",
    ),
    case(
        "justemails",
        "sender",
        "the domain of From is not verified",
        answers("justemails", 422, "DOMAIN", "Domain corp.example is not verified"),
        "not verified",
        "verify the domain",
        ends=Ends.WAITS,
        doctor="",
    ),
    case(
        "justemails",
        "quota",
        "the limit is spent",
        answers("justemails", 429, "RATE", "Daily limit reached", _WAIT),
        "Daily limit",
        "",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "justemails",
        "large",
        "the message is too large",
        answers("justemails", 413, "TOO_LARGE", "Payload too large"),
        "too large",
        "smaller",
        ends=Ends.REFUSED,
        doctor="",
    ),
    case(
        "mailpass",
        "key",
        "the API key is wrong",
        wrong_key("mailpass", "f" * 32),
        "UNAUTHORIZED",
        "valid key into api_key",
    ),
    case(
        "mailpass",
        "provider",
        "the account has no SMTP provider",
        answers("mailpass", 400, "NO_SMTP_PROVIDER", "No active SMTP provider"),
        "NO_SMTP_PROVIDER",
        "add an SMTP provider",
        doctor="",
    ),
    case(
        "mailpass",
        "quota",
        "the limit of its SMTP provider is spent",
        answers("mailpass", 429, "SEND_LIMIT_EXCEEDED", "Hourly send limit exceeded"),
        "send limit",
        "raise the limit",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "mailpass",
        "sender",
        "the From address is not verified",
        answers("mailpass", 400, "SENDER", "The sender domain is not verified"),
        "not verified",
        "verify the sender",
        ends=Ends.WAITS,
        doctor="",
    ),
    case(
        "mailpass",
        "large",
        "the message is too large",
        answers("mailpass", 413, "TOO_LARGE", "Payload too large"),
        "too large",
        "smaller",
        ends=Ends.REFUSED,
        doctor="",
    ),
    case(
        "temp_mail",
        "token",
        "the address credential (JWT) is not good any more",
        partial(api, kind="temp_mail", change={"tokens": {}}),
        "signature mismatched|Invalid address credential",
        "address's present credential",
    ),
    case(
        "temp_mail",
        "site",
        "the site wants its password",
        partial(api, kind="temp_mail", change={"password": "site-password"}, own={"site_password": "another-one"}),
        "private site password",
        "site's password into site_password",
    ),
    case(
        "temp_mail",
        "balance",
        "the address may send no more (no balance)",
        answers("temp_mail", 400, "", "Failed to send mail No balance"),
        "No balance",
        "administrator of the site",
        doctor="",
    ),
    case(
        "temp_mail",
        "quota",
        "the site's mail of the day is used up",
        answers("temp_mail", 400, "", "Failed to send mail Server daily send quota has been reached"),
        "daily send quota",
        "",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "temp_mail",
        "worker",
        "the Worker has no way to send",
        answers(
            "temp_mail",
            400,
            "",
            "Failed to send mail Please enable resend, smtp or SEND_MAIL for this domain (corp.example)",
        ),
        "Please enable resend",
        "RESEND_TOKEN",
        doctor="",
    ),
    *(one for kind, fake in FAKES.items() for one in on_the_way(kind, HOSTS[kind], fake(), reached(kind), slow=True)),
)
