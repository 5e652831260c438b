"""Microsoft 365 by Graph, broken in each way that administrators write about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from tests.backends.graph_fake import CLIENT, SECRET, TENANT, GraphFake, error, refusal
from tests.broken.kit import SENDER, Case, Ends, Lab, Settings
from tests.broken.ways import on_the_way
from tests.fakes import FakeClock
from tests.rsa_keys import rsa_key

API, LOGIN = "graph.microsoft.com", "login.microsoftonline.com"
MANY = 50  # answers: as often as anybody asks
_OTHERS = "set-ntp|timedatectl"


def by_secret(lab: Lab) -> Settings:
    return {"client_secret_file": lab.file("graph.secret", SECRET)}


def by_certificate(lab: Lab, ends: datetime = datetime(2036, 1, 1, tzinfo=UTC)) -> Settings:
    key = rsa_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2024, 1, 1, tzinfo=UTC)).not_valid_after(ends)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    shown = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return {"certificate_file": lab.file(f"graph-{ends:%Y}.pem", shown + pem)}


async def settings(lab: Lab, api: str, login: str, more: Settings) -> Settings:
    plain = {
        "type": "graph",
        "tenant": TENANT,
        "client_id": CLIENT,
        "mailbox": SENDER,
        "senders": [SENDER, "b@corp.example"],
    }
    return {**plain, "api_base": api, "authority": login, **(more or by_secret(lab))}


async def cloud(lab: Lab, fake: GraphFake | None = None, more: Settings = {}, **answers: bytes) -> Settings:  # noqa: B006
    """Both hosts are one fake."""
    fake = fake or GraphFake(FakeClock())
    fake.answers |= {place: [answer] * MANY for place, answer in answers.items()}
    api, login = await lab.web(fake, API), await lab.web(fake, LOGIN)
    fake.url = login.url
    return await settings(lab, api.url, login.url, more)


def token(status: int, name: str, code: int, words: str) -> Any:
    return partial(cloud, token=refusal(status, name, code, words))


def answer(place: str, status: int, code: str, words: str, **headers: str) -> Any:
    return partial(cloud, **{place: error(status, code, words, **headers)})


async def ended_certificate(lab: Lab) -> Settings:
    words = "The provided certificate is not within its specified validity period."
    own = by_certificate(lab, datetime(2026, 11, 1, tzinfo=UTC))
    return await cloud(lab, None, own, token=refusal(401, "invalid_client", 1000502, words))


async def unknown_certificate(lab: Lab) -> Settings:
    words = "The certificate with identifier used to sign the client assertion is not registered on application."
    return await cloud(lab, None, by_certificate(lab), token=refusal(401, "invalid_client", 700027, words))


async def clock(lab: Lab) -> Settings:
    words = "Client assertion is not within its valid time range. Current time: 2026-11-20T09:00:00Z"
    return await cloud(lab, None, by_certificate(lab), token=refusal(401, "invalid_client", 700024, words))


async def no_permission(lab: Lab) -> Settings:
    return await cloud(lab, GraphFake(FakeClock(), permissions="User.Read.All"))


async def no_mailbox(lab: Lab) -> Settings:
    return await cloud(lab, GraphFake(FakeClock(), mailboxes=set()))


def case(key: str, cause: str, set_up: Any, named: str, cure: str, **more: Any) -> Case:
    return Case(provider="graph", key=key, cause=cause, set_up=set_up, named=named, cure=cure, **more)


async def reached(lab: Lab, url: str, more: Settings) -> Settings:
    return {**await settings(lab, url, url, {}), **more}


_SECRETS = "clock|certificate_file"
CASES: tuple[Case, ...] = (
    case(
        "secret",
        "the client secret is wrong, or its ID was taken for it",
        token(
            401,
            "invalid_client",
            7000215,
            "Invalid client secret provided. Ensure the secret being sent in the"
            " request is the client secret value, not the client secret ID",
        ),
        "7000215.*client secret",
        "put its Value, not its Secret ID",
        never=_SECRETS,
    ),
    case(
        "secret_ended",
        "the client secret has ended",
        token(401, "invalid_client", 7000222, "The provided client secret keys for app are expired."),
        "7000222.*expired",
        "client secret has expired: make a new client secret",
        never=_SECRETS,
    ),
    case(
        "certificate_ended",
        "the certificate has ended",
        ended_certificate,
        "1000502.*validity period",
        "certificate has (ended|expired).*upload",
        never="client_secret",
    ),
    case(
        "certificate",
        "the certificate was not uploaded, or another one was",
        unknown_certificate,
        "700027.*not registered",
        "upload the certificate",
        never="client_secret|clock",
    ),
    case(
        "tenant",
        "no such tenant",
        partial(cloud, discovery=refusal(400, "invalid_tenant", 90002, "Tenant 'contoso.example' not found.")),
        "contoso.example",
        "check tenant",
        never="secret|clock",
    ),
    case(
        "client",
        "no such application",
        token(
            400, "unauthorized_client", 700016, "Application with identifier '11111111' was not found in the directory"
        ),
        "700016.*not found",
        "check client_id",
        never="secret|clock",
    ),
    case(
        "policy",
        "Conditional Access forbids it",
        token(400, "invalid_grant", 53003, "Access has been blocked by Conditional Access policies."),
        "53003",
        "Conditional Access policy",
        never="secret|clock",
    ),
    case(
        "permission",
        "the permission Mail.Send is missing",
        no_permission,
        "ErrorAccessDenied|does not name Mail.Send",
        "Mail.Send",
        never="secret|clock",
    ),
    case(
        "mailbox",
        "the mailbox does not exist",
        no_mailbox,
        "requested user 'a@corp.example' is invalid",
        "mailbox",
        never="secret|clock",
    ),
    case(
        "blocked",
        "Microsoft has blocked the account from sending",
        answer(
            "sendMail",
            403,
            "ErrorMessageSubmissionBlocked",
            "Cannot send mail. Follow the instructions in your Inbox to verify your account.",
        ),
        "ErrorMessageSubmissionBlocked",
        "unblock the account",
        doctor="",
        never="secret|clock",
    ),
    case(
        "send_as",
        "the mailbox may not send as this From (no Send As)",
        answer(
            "sendMail",
            403,
            "ErrorSendAsDenied",
            "The user account does not have the right to send mail on behalf of the specified sending account.",
        ),
        "ErrorSendAsDenied",
        "Send As",
        ends=Ends.REFUSED,
        doctor="Send As",
        sender="b@corp.example",
        never="secret|clock",
    ),
    case(
        "busy",
        "too many requests",
        answer(
            "sendMail",
            429,
            "ApplicationThrottled",
            "Application is over its MailboxConcurrency limit.",
            Retry_After="7200",
        ),
        "ApplicationThrottled",
        "",
        ends=Ends.SLOWED,
        doctor="",
        never="secret|clock",
    ),
    case(
        "quota",
        "the mailbox has sent to too many people today",
        answer(
            "sendMail",
            403,
            "ErrorExceededMessageLimit",
            "The message can't be sent because the sender has exceeded the daily limit.",
        ),
        "ErrorExceededMessageLimit",
        "",
        ends=Ends.SLOWED,
        doctor="",
        never="secret|clock",
    ),
    case(
        "full",
        "the mailbox is full",
        answer("sendMail", 507, "ErrorQuotaExceeded", "The mailbox storage limit has been exceeded."),
        "ErrorQuotaExceeded",
        "make room",
        ends=Ends.WAITS,
        doctor="",
        never="secret|clock",
    ),
    case(
        "large",
        "the message is too large",
        answer("sendMail", 413, "RequestEntityTooLarge", "Request entity too large"),
        "RequestEntityTooLarge|larger than they take",
        "large_messages: draft|smaller",
        ends=Ends.REFUSED,
        doctor="",
        never="secret|clock",
    ),
    case(
        "clock",
        "the clock of this machine is hours off",
        clock,
        "700024.*time range",
        "clock of this machine",
        never="client_secret|upload the certificate",
    ),
    *on_the_way("graph", API, GraphFake(FakeClock()), reached, slow=False),
)


def known() -> Mapping[str, Case]:
    return {one.name: one for one in CASES}
