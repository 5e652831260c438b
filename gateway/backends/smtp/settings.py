"""The settings of backend ``smtp``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.address import a_labels
from gateway.backends.google.over_smtp import GoogleLoginSettings
from gateway.backends.microsoft.over_smtp import MicrosoftLoginSettings
from gateway.backends.shared.files import examine_pair
from gateway.backends.smtp.presets import LOGINS, Preset, filled
from gateway.config import values
from gateway.config.authorities import examine_authorities
from gateway.config.finding import Examined, Finding, below
from gateway.config.models import BackendSettings
from gateway.trust import Trust
from gateway.url import is_loopback

_BY_TOKEN = ("xoauth2", "oauthbearer")
_ENDING = {  # techcommunity.microsoft.com 4114750: the timeline of Exchange Online for basic authentication with SMTP
    "smtp.office365.com": "has passwords switched off from the end of December 2026: log in by microsoft and mailbox "
    "in the place of username and password (docs/microsoft365.md)",
    "smtp-mail.outlook.com": "takes no passwords: log in by microsoft and mailbox (docs/microsoft365.md)",
}
_PORTS = {"none": 25, "starttls": 587, "implicit": 465}


def _host(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        if not re.fullmatch(r"[^\s/:.]+(\.[^\s/:.]+)*\.?", text):
            raise ValueError("must be a host name or address alone; write the port as port: 587") from None
    return a_labels(text)


def _ehlo(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text := a_labels(text)):
        raise ValueError("must be one word, such as relay.example.com")
    return text


Host = Annotated[str, AfterValidator(_host)]


class SmtpSettings(BackendSettings):
    """``preset`` fills in what is known of a provider. ``port`` follows from ``tls`` unless given.

    ``ca_file``: the certificates to trust instead of the system's. ``server_name`` is the name that the server's
    certificate must have, where that is not ``host``. The server is shown ``certificate_file``.
    Login: ``username`` with ``password``, or with ``token_file``, which holds an access token and is read at every
    login; or as ``mailbox`` with tokens of ``microsoft`` or ``google``. That is an address, "sender" (the From address)
    or "me" (who signed in); each may have so many connections and messages (``mailbox_concurrency``, ``mailbox_rate``).
    ``max_recipients`` in one transaction; 100 is what every server must take (RFC 5321, 4.5.3.1.8).
    """

    label: ClassVar[str] = "SMTP"
    instead: ClassVar[Mapping[str, str]] = {"host": "preset"}
    type: Literal["smtp"] = "smtp"
    preset: Preset | None = None
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 20  # as Postfix (default_destination_concurrency_limit)
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    server_name: Host | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    username: str | None = None
    password: SecretStr | None = None
    token_file: Path | None = None
    microsoft: MicrosoftLoginSettings | None = None
    google: GoogleLoginSettings | None = None
    mailbox: values.Mailbox | None = None
    senders: tuple[values.Pattern, ...] = ()
    mailbox_rate: values.RateLimit | None = None
    mailbox_concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None
    auth: Literal["auto", "plain", "login", "cram-md5", "xoauth2", "oauthbearer"] = "auto"
    max_recipients: Annotated[int, Field(ge=1, le=100_000)] = 100
    local_hostname: Annotated[str, AfterValidator(_ehlo)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        return filled(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _login_is_safe(self) -> SmtpSettings:
        if self.tokens is not None:
            self._tokens_fit(self.tokens)
        else:
            self._user_fits()
        if self.logs_in and self.tls == "none" and not is_loopback(self.host):
            raise ValueError("a password is not sent unencrypted: set tls to starttls or implicit")
        if self.private_key_file is not None and self.certificate_file is None:
            raise ValueError("private_key_file needs certificate_file")
        return self

    def _user_fits(self) -> None:
        by_token = self.auth in _BY_TOKEN
        needed, unused = ("token_file", "password") if by_token else ("password", "token_file")
        if (self.username is None) != (getattr(self, needed) is None) or (by_token and self.username is None):
            or_else = f" where auth is {self.auth}, unless microsoft or google gives tokens" if by_token else ""
            raise ValueError(f"username and {needed} go together{or_else}")
        if getattr(self, unused) is not None:
            raise ValueError(f"{unused} is not used where auth is {self.auth}")
        if self.mailbox is not None or self.senders:
            name = "senders" if self.mailbox is None else "mailbox"
            raise ValueError(f"{name} needs microsoft or google, whose tokens log it in; or write username")
        if self.preset is not None and self.username is None:
            raise ValueError(f"preset {self.preset} needs a login: {LOGINS[self.preset]}")

    def _tokens_fit(self, tokens: MicrosoftLoginSettings | GoogleLoginSettings) -> None:
        if self.microsoft is not None and self.google is not None:
            raise ValueError("give microsoft or google, one of them")
        for name in ("username", "password", "token_file"):
            if getattr(self, name) is not None:
                instead = "; the user is the mailbox" if name == "username" else ""
                raise ValueError(f"{name} is not used with {tokens.section}{instead}")
        if self.auth not in ("auto", *_BY_TOKEN):
            raise ValueError(f"auth {self.auth} takes a password, and {tokens.section} gives tokens: take the line out")
        if self.mailbox is None:
            raise ValueError('mailbox is missing: an address, "sender" or "me"')
        if why := tokens.unfit(self.mailbox):
            raise ValueError(why)
        if self.mailbox != "me" and "@" not in self.mailbox and not self.senders:
            raise ValueError('mailbox "sender" needs senders, such as ["*@example.com"]: the domains of your mailboxes')
        if self.mailbox == "me" and not self.senders:
            raise ValueError("mailbox me needs, in senders, the address that signs in")

    @property
    def tokens(self) -> MicrosoftLoginSettings | GoogleLoginSettings | None:
        """Who gives the tokens for the login, if it is one of our own providers."""
        return self.microsoft or self.google

    @property
    def logs_in(self) -> bool:
        return self.username is not None or self.tokens is not None

    @property
    def oauth(self) -> bool:
        return self.tokens is not None

    @property
    def actual_port(self) -> int:
        return self.port or _PORTS[self.tls]

    def filled_by(self, key: str) -> str:
        given = filled({"preset": self.preset, "mailbox": self.mailbox})
        return f"preset {self.preset}" if self.preset and key in given and key not in ("preset", "mailbox") else ""

    @property
    def known_as(self) -> Mapping[str, str]:
        return {"host": self.where} | ({"mailbox": self.mailbox} if self.mailbox else {})

    @property
    def where(self) -> str:
        """Host and port, as they are shown."""
        return f"{self.host}:{self.actual_port}"

    def examine(self, name: str, state_dir: Path) -> Examined:
        """Whether the files can be used, and until when. Where there is no TLS they hinder nobody."""
        used = self.tls != "none"
        yield from examine_authorities(self.ca_file, fatal=used)
        if self.certificate_file is not None:
            yield from examine_pair(self.certificate_file, self.private_key_file, fatal=used)
        if self.password is not None and self.host in _ENDING:
            yield Finding(("username",), f"{self.host} {_ENDING[self.host]}", fatal=False)
        if self.tokens is not None and self.mailbox is not None:
            yield from below((self.tokens.section,), self.tokens.examine(name, state_dir, self.mailbox))

    def trust(self, kept: Callable[[str, str], None]) -> Trust:
        """What a TLS connection to this server is made with."""
        pair = {"certificate": self.certificate_file, "private_key": self.private_key_file}
        return Trust(self.ca_file, alone=True, kept=kept, **pair)
