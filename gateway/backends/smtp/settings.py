"""The settings of backend ``smtp``."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.config.finding import Ending, Examined, Finding
from gateway.config.models import BackendSettings
from gateway.pem import complaint
from gateway.url import is_loopback

_PORTS = {"none": 25, "starttls": 587, "implicit": 465}


def _host(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        if not re.fullmatch(r"[^\s/:.]+(\.[^\s/:.]+)*\.?", text):
            raise ValueError("must be a host name or address alone; write the port as port: 587") from None
    return text


class SmtpSettings(BackendSettings):
    """``port`` follows from ``tls`` unless given. ``ca_file``: the certificates to trust instead of the system's."""

    type: Literal["smtp"] = "smtp"
    host: Annotated[str, AfterValidator(_host)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    ca_file: Path | None = None
    username: str | None = None
    password: SecretStr | None = None
    auth: Literal["auto", "plain", "login"] = "auto"
    local_hostname: Annotated[str, Field(pattern=r"^[\x21-\x7e]+$")] | None = None

    @model_validator(mode="after")
    def _login_is_safe(self) -> SmtpSettings:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.tls == "none" and not is_loopback(self.host):
            raise ValueError("a password is not sent unencrypted: set tls to starttls or implicit")
        return self

    @property
    def actual_port(self) -> int:
        return self.port or _PORTS[self.tls]

    @property
    def where(self) -> str:
        """Host and port, as they are shown."""
        return f"{self.host}:{self.actual_port}"

    def examine(self, name: str, state_dir: Path) -> Examined:
        """Whether ``ca_file`` can be trusted from, and until when. Where it is not used it hinders nobody."""
        if (file := self.ca_file) is None:
            return
        keys, used = ("ca_file",), self.tls != "none"
        try:
            trusted = ssl.create_default_context(cafile=file).get_ca_certs()
        except ssl.SSLError:
            yield Finding(keys, f"{file} {complaint(file.read_bytes(), 'certificate')}", fatal=used)
        except OSError as error:
            yield Finding(keys, f"{file}: {error.strerror}", fatal=used)
        else:
            if ends := [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in trusted]:
                yield Ending(keys, "the last certificate in it", datetime.fromtimestamp(max(ends), UTC))
