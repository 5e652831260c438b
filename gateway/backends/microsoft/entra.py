"""By what right tokens of Microsoft are asked for: settings that ``graph`` and ``smtp`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr, model_validator

from gateway.backends.microsoft import tokens
from gateway.backends.microsoft.certificate import Source
from gateway.backends.microsoft.forms import ClientId, ClientSecret, Tenant
from gateway.backends.shared.base import Url
from gateway.backends.shared.stores import Shared, sign_in_of
from gateway.config.finding import Ending, Examined
from gateway.config.section import Section

Cloud = Literal["global", "usgov", "dod", "china"]
_AUTHORITIES = {  # https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
    "global": "https://login.microsoftonline.com",
    "usgov": "https://login.microsoftonline.us",
    "dod": "https://login.microsoftonline.us",
    "china": "https://login.partner.microsoftonline.cn",
}
_RIGHTS = ("client_secret", "certificate_file", "federated_token_file", "device_login", "managed_identity")


class EntraSettings(Section):
    """An application and its credential, or a sign-in.

    ``authority`` replaces the address that ``cloud`` stands for. ``certificate_password`` opens the key, or the whole
    file (PFX); ``federated_token_file`` holds a token of another issuer and is read for every token of ours.
    ``client_secret_expires`` is only for the metric that warns.
    """

    cloud: Cloud = "global"
    authority: Url | None = None
    tenant: Tenant = ""  # its form depends on authority
    client_id: ClientId = ""
    client_secret: ClientSecret | None = None
    client_secret_expires: date | None = None
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    certificate_password: SecretStr | None = None
    federated_token_file: Path | None = None
    device_login: bool = False
    managed_identity: bool = False

    @model_validator(mode="after")
    def _one_right(self) -> Self:
        if sum(bool(getattr(self, name)) for name in _RIGHTS) != 1:
            raise ValueError(f"needs exactly one of {', '.join(_RIGHTS)}")
        for name in ("private_key_file", "certificate_password"):
            if getattr(self, name) is not None and self.certificate_file is None:
                raise ValueError(f"{name} needs certificate_file")
        for name in ("tenant", "client_id"):
            if not self.managed_identity and not getattr(self, name):
                raise ValueError(f"{name} is missing")
        if not self.device_login and self.tenant.lower() in ("common", "organizations", "consumers"):
            raise ValueError(f"tenant {self.tenant} is for device_login only, give the tenant's id or domain")
        return self

    def right(
        self, name: str, state_dir: Path, shared: Shared | None, resource: str, scopes: tuple[str, ...]
    ) -> tokens.Identity:
        """Who asks for tokens. An application asks for all that it may do at ``resource``, a person for ``scopes``."""
        return tokens.Identity(
            name,
            f"{self.authority or _AUTHORITIES[self.cloud]}/{self.tenant}",
            self.client_id,
            resource,
            scopes,
            secret=self.client_secret.get_secret_value() if self.client_secret else "",
            certificate=self._source(),
            federated=self.federated_token_file,
            store=sign_in_of(name, state_dir / f"oauth-{name}.json", shared) if self.device_login else None,
            managed=self.managed_identity,
        )

    def _source(self) -> Source | None:
        if self.certificate_file is None:
            return None
        password = self.certificate_password.get_secret_value() if self.certificate_password else ""
        return Source(self.certificate_file, self.private_key_file, password)

    def examine_right(self, identity: tokens.Identity) -> Examined:
        """What is wrong with its files, and when they or the secret end. Reads them; asks nobody."""
        yield from tokens.examine(identity)
        if self.client_secret_expires:
            yield Ending(("client_secret_expires",), "the client secret", _midnight(self.client_secret_expires))

    def tell_of_secret(self, name: str, credential_ends: Callable[[str, float], None]) -> None:
        """When the client secret ends, where the settings say so."""
        if self.client_secret_expires:
            credential_ends(name, _midnight(self.client_secret_expires).timestamp())


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
