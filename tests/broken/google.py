"""Gmail by its API, signed in once or by a service account, broken in each way that administrators write about."""

from __future__ import annotations

from functools import partial
from typing import Any

from gateway.clock import SystemClock
from tests.backends.gmail_fake import GoogleFake, authorized_user_info, error, service_account_info, stored
from tests.backends.kit import http
from tests.broken.kit import SENDER, Case, Ends, Lab, Settings
from tests.broken.ways import on_the_way

API, TOKENS = "gmail.googleapis.com", "oauth2.googleapis.com"
MANY = 50
_NEVER = "clock|proxy"


def user(lab: Lab) -> Settings:
    stored(lab.folder, authorized_user_info(), "google.json")
    return {"authorized_user_file": "google.json", "mailbox": "me"}


def service(lab: Lab, mailbox: str = SENDER) -> Settings:
    stored(lab.folder, service_account_info(), "sa.json")
    return {"service_account_file": "sa.json", "mailbox": mailbox}


async def cloud(lab: Lab, who: Any = user, *, token: bytes = b"", sent: bytes = b"", **changes: Any) -> Settings:
    fake = GoogleFake(SystemClock(), **changes)
    fake.token_answers, fake.answers = [token] * MANY * bool(token), [sent] * MANY * bool(sent)
    api, tokens = await lab.web(fake, API), await lab.web(fake, TOKENS)
    return {"type": "gmail", "api_base": api.url, "token_url": f"{tokens.url}/token", **who(lab)}


async def reached(lab: Lab, url: str, more: Settings) -> Settings:
    return {"type": "gmail", "api_base": url, "token_url": f"{url}/token", **user(lab), **more}


def no_token(status: int, name: str, words: str, who: Any = user) -> Any:
    return partial(cloud, who=who, token=http(status, {"error": name, "error_description": words}))


def answer(code: int, reason: str, words: str, **more: str) -> Any:
    return partial(cloud, sent=error(code, reason, words, **more))


def case(key: str, cause: str, set_up: Any, named: str, cure: str, **more: Any) -> Case:
    given = {"never": _NEVER, **more}
    return Case(provider="gmail", key=key, cause=cause, set_up=set_up, named=named, cure=cure, **given)


CASES: tuple[Case, ...] = (
    case(
        "sign_in",
        "the sign-in has ended or was withdrawn",
        no_token(400, "invalid_grant", "Token has been expired or revoked."),
        "invalid_grant.*expired or revoked",
        "sign in again: gateway auth google|gateway auth google --backend",
    ),
    case(
        "client",
        "the OAuth client is gone, or its secret is wrong",
        no_token(401, "invalid_client", "The OAuth client was not found."),
        "invalid_client",
        "OAuth client .*Create client",
    ),
    case(
        "key",
        "the key of the service account was deleted",
        no_token(400, "invalid_grant", "Invalid JWT Signature.", service),
        "Invalid JWT Signature",
        "Keys > Add key",
    ),
    case(
        "delegation",
        "domain-wide delegation is missing, or lacks the scope",
        no_token(
            401,
            "unauthorized_client",
            "Client is unauthorized to retrieve access tokens using this method, or client"
            " not authorized for any of the scopes requested.",
            service,
        ),
        "unauthorized_client",
        "Manage domain-wide delegation",
    ),
    case(
        "mailbox",
        "the mailbox is no user of the Workspace",
        partial(cloud, who=partial(service, mailbox="no@corp.example")),
        "Invalid email or User ID",
        "no user of this Workspace",
        sender="no@corp.example",
    ),
    case(
        "api",
        "the Gmail API is not enabled",
        answer(403, "accessNotConfigured", "Gmail API has not been used in project 1 before or it is disabled."),
        "has not been used in project",
        "enable the Gmail API",
        doctor="",
    ),
    case(
        "scope",
        "the sign-in lacks the scope gmail.send",
        partial(
            cloud,
            granted="https://www.googleapis.com/auth/gmail.readonly",
            sent=error(403, "insufficientPermissions", "Request had insufficient authentication scopes."),
        ),
        "may not send mail, only",
        "sign in again.*tick the box",
    ),
    case(
        "licence",
        "the user has no Gmail (no licence, or switched off)",
        answer(400, "failedPrecondition", "Mail service not enabled"),
        "Mail service not enabled",
        "licence with Gmail",
        doctor="",
    ),
    case(
        "policy",
        "the Workspace forbids it",
        answer(403, "domainPolicy", "The domain administrators have disabled Gmail apps."),
        "domain administrators",
        "admin.google.com",
        doctor="",
    ),
    case(
        "busy",
        "the mailbox sends too fast, or its day's limit is spent",
        answer(
            429, "rateLimitExceeded", "User-rate limit exceeded.  Retry after 2026-11-20T15:00:00.000Z (Mail sending)"
        ),
        "User-rate limit exceeded",
        "",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "quota",
        "the project's limit of the day is spent",
        answer(403, "dailyLimitExceeded", "Daily Limit Exceeded"),
        "Daily Limit Exceeded",
        "limit for this day|Quotas",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "large",
        "the message is too large",
        answer(413, "uploadTooLarge", "Request is too large."),
        "too large",
        "smaller",
        ends=Ends.REFUSED,
        doctor="",
    ),
    case(
        "clock",
        "the clock of this machine is more than some minutes off",
        no_token(
            400,
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable"
            " timeframe. Check your iat and exp values in the JWT claim.",
            service,
        ),
        "reasonable timeframe",
        "clock of this machine is wrong",
        never="sign in again|key",
    ),
    *on_the_way("gmail", API, GoogleFake(SystemClock()), reached, slow=True),
)
