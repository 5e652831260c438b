"""What there may be at the other end, what has to be asked about it, and the backend that is made of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """``key`` is the option and the answer's name. ``secret``: it is never shown, and goes into a file of its own.
    ``file``: the answer names a file, which is copied beside the settings. ``default`` None: it must be answered."""

    key: str
    text: str
    default: str | None = None
    secret: bool = False
    file: str = ""
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        return f"--{self.key.replace('_', '-')}{'-file' if self.secret else ''}"


@dataclass(frozen=True, slots=True)
class Provider:
    """``name`` is what its backend is called if nothing else is said; ``fixed`` are settings that are never asked.
    ``mailbox`` is the setting that takes the sender's address, "" for none. ``left`` is to be done afterwards."""

    label: str
    name: str
    fixed: Mapping[str, Any]
    questions: tuple[Question, ...] = ()
    mailbox: str = ""
    left: str = ""
    page: str = ""


_KEY = Question("secret", "Its API key (not shown)", secret=True)
_TENANT = Question("tenant", "The tenant: its id, or a domain of it such as contoso.onmicrosoft.com")
_CLIENT = Question("client_id", "Application (client) ID, as App registrations > Overview shows it")

PROVIDERS: Mapping[str, Provider] = {
    "microsoft365": Provider(
        "Microsoft 365 (work or school mailboxes)", "office", {"type": "graph"},
        (_TENANT, _CLIENT, Question("certificate_file", "File of certificate and key (PEM, PFX)", file="graph.pem")),
        mailbox="mailbox", page="docs/microsoft365.md",
    ),
    "workspace": Provider(
        "Google Workspace, by a service account", "google", {"type": "gmail"},
        (Question("service_account_file", "The service account's key (JSON file)", file="google-sa.json"),),
        mailbox="mailbox", page="docs/gmail.md",
    ),
    "gmail": Provider(
        "a personal Gmail account, or one mailbox of a Workspace", "gmail", {"type": "gmail", "mailbox": "me"},
        (Question("authorized_user_file", "What gateway auth google has stored (JSON file)", file="gmail.json"),),
        mailbox="senders", page="docs/gmail.md",
    ),
    "outlook": Provider(
        "a personal account of outlook.com or hotmail.com", "outlook",
        {"type": "graph", "tenant": "consumers", "device_login": True, "mailbox": "me"}, (_CLIENT,),
        mailbox="senders", left="gateway auth microsoft --backend {name}", page="docs/microsoft365.md",
    ),
    "smtp2go": Provider(
        "SMTP2GO", "s2g", {"type": "smtp2go"},
        (_KEY, Question("region", "Region of the account", "global", choices=("global", "us", "eu", "au"))),
        page="docs/smtp2go.md",
    ),
    "smtp": Provider(
        "an SMTP server of a provider or of yours (smarthost)", "smart", {"type": "smtp"},
        (
            Question("host", "Its name, such as smtp.example.net"),
            Question("tls", "TLS", "starttls", choices=("starttls", "implicit", "none")),
            Question("port", "Its port (empty: 587 with starttls, 465 with implicit, 25 without TLS)", ""),
            Question("username", "User name (empty: without a login)", ""),
            Question("secret", "Password (not shown)", secret=True),
        ),
        page="docs/smarthost.md",
    ),
    "js2mail": Provider("JS2Mail", "js2", {"type": "js2mail"}, (_KEY,), page="docs/json-apis.md"),
    "justemails": Provider("JustEmails", "je", {"type": "justemails"}, (_KEY,), page="docs/json-apis.md"),
    "mailpass": Provider("MailPass", "mp", {"type": "mailpass"}, (_KEY,), page="docs/json-apis.md"),
    "capture": Provider("nothing yet: only write mail into files", "box", {"type": "capture", "directory": "captured"}),
}  # fmt: skip
_SECRETS = {"smtp": ("password_file", "pw")}  # where its secret stands; of the others it is an API key


def backend(kind: str, name: str, answers: Mapping[str, str], sender: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Its settings, and the secrets by the names of their files beside them. Files that are named stay as given."""
    provider = PROVIDERS[kind]
    found, secrets = dict(provider.fixed), dict[str, str]()
    for one in provider.questions:
        if not (given := answers.get(one.key, "")):
            continue
        if one.secret:
            key, ending = _SECRETS.get(kind, ("api_key_file", "key"))
            found[key] = f"{name}.{ending}"
            secrets[f"{name}.{ending}"] = f"{given}\n"
        elif given != one.default:
            found[one.key] = int(given) if given.isdecimal() and one.key == "port" else given
    if provider.mailbox == "senders":
        found["senders"] = [sender]
    elif provider.mailbox:
        found[provider.mailbox] = sender
    return found, secrets


def wanted(kind: str, answers: Mapping[str, str]) -> tuple[Question, ...]:
    """What is still to be asked, by what was answered: without a user name there is no password."""
    skip = {"secret"} if kind == "smtp" and answers.get("username") == "" else set()
    return tuple(one for one in PROVIDERS[kind].questions if one.key not in skip and one.key not in answers)
