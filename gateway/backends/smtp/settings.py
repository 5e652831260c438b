"""The settings of backend ``smtp``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.address import a_labels
from gateway.backends.shared.files import examine_pair
from gateway.config.authorities import examine_authorities
from gateway.config.finding import Examined
from gateway.config.models import BackendSettings
from gateway.trust import Trust
from gateway.url import is_loopback

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
    """``port`` follows from ``tls`` unless given. ``ca_file``: the certificates to trust instead of the system's.

    ``server_name`` is the name that the server's certificate must have, where that is not ``host``. ``token_file``
    holds an access token for xoauth2 and is read at every login. The server is shown ``certificate_file``.
    ``max_recipients`` in one transaction; 100 is what every server must take (RFC 5321, 4.5.3.1.8).
    """

    label: ClassVar[str] = "SMTP"
    type: Literal["smtp"] = "smtp"
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
    auth: Literal["auto", "plain", "login", "cram-md5", "xoauth2"] = "auto"
    max_recipients: Annotated[int, Field(ge=1, le=100_000)] = 100
    local_hostname: Annotated[str, AfterValidator(_ehlo)] | None = None

    @model_validator(mode="after")
    def _login_is_safe(self) -> SmtpSettings:
        by_token = self.auth == "xoauth2"
        needed, unused = ("token_file", "password") if by_token else ("password", "token_file")
        if (self.username is None) != (getattr(self, needed) is None) or (by_token and self.username is None):
            raise ValueError(f"username and {needed} go together" + (" where auth is xoauth2" if by_token else ""))
        if getattr(self, unused) is not None:
            raise ValueError(f"{unused} is not used where auth is {self.auth}")
        if self.username is not None and self.tls == "none" and not is_loopback(self.host):
            raise ValueError("a password is not sent unencrypted: set tls to starttls or implicit")
        if self.private_key_file is not None and self.certificate_file is None:
            raise ValueError("private_key_file needs certificate_file")
        return self

    @property
    def actual_port(self) -> int:
        return self.port or _PORTS[self.tls]

    @property
    def known_as(self) -> Mapping[str, str]:
        return {"host": self.where}

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

    def trust(self, kept: Callable[[str, str], None]) -> Trust:
        """What a TLS connection to this server is made with."""
        pair = {"certificate": self.certificate_file, "private_key": self.private_key_file}
        return Trust(self.ca_file, alone=True, kept=kept, **pair)
