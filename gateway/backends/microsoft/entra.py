"""By what right tokens of Microsoft are asked for: settings that ``graph`` and ``smtp`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr, model_validator

from gateway.backends.microsoft import tokens
from gateway.backends.microsoft.certificate import Pair, Source, Unusable
from gateway.backends.microsoft.forms import ClientId, ClientSecret, Guid, Tenant
from gateway.backends.microsoft.keyring import Keyring
from gateway.backends.microsoft.renewal import Application, Renewal
from gateway.backends.shared.base import Context, Url
from gateway.backends.shared.stores import Shared, Unkept, Unreadable, sign_in_of
from gateway.config.finding import Ending, Examined, Finding
from gateway.config.section import Section

Cloud = Literal["global", "usgov", "dod", "china"]
_AUTHORITIES = {  # https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
    "global": "https://login.microsoftonline.com",
    "usgov": "https://login.microsoftonline.us",
    "dod": "https://login.microsoftonline.us",
    "china": "https://login.partner.microsoftonline.cn",
}
GRAPH = {  # where the API is: https://learn.microsoft.com/graph/deployments
    "global": "https://graph.microsoft.com",
    "usgov": "https://graph.microsoft.us",
    "dod": "https://dod-graph.microsoft.us",
    "china": "https://microsoftgraph.chinacloudapi.cn",
}
_RIGHTS = ("client_secret", "certificate_file", "federated_token_file", "device_login", "managed_identity")


class EntraSettings(Section):
    """An application and its credential, or a sign-in.

    ``authority`` replaces the address that ``cloud`` stands for. ``certificate_password`` opens the key, or the whole
    file (PFX); ``federated_token_file`` holds a token of another issuer and is read for every token of ours.
    ``client_secret_expires`` is only for the metric that warns. With ``certificate_renew`` a new key takes the place of
    that in certificate_file in time: ``object_id`` is the application's, ``certificate_id`` that of the first one.
    ``api_base`` replaces the address of Microsoft Graph that ``cloud`` stands for.
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
    certificate_renew: bool = False
    object_id: Guid = ""
    certificate_id: Guid = ""
    api_base: Url | None = None
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
        if self.certificate_renew and (self.certificate_file is None or not self.object_id):
            lacking = (
                "certificate_file" if self.certificate_file is None else "object_id (App registrations > Overview)"
            )
            raise ValueError(f"certificate_renew needs {lacking}")
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
            pair=ring.pair if (ring := self._ring(state_dir, shared)) else None,
            federated=self.federated_token_file,
            store=sign_in_of(name, state_dir / f"oauth-{name}.json", shared) if self.device_login else None,
            managed=self.managed_identity,
        )

    def _source(self) -> Source | None:
        if self.certificate_file is None:
            return None
        password = self.certificate_password.get_secret_value() if self.certificate_password else ""
        return Source(self.certificate_file, self.private_key_file, password)

    def _ring(self, state_dir: Path, shared: Shared | None) -> Keyring | None:
        source = self._source() if self.certificate_renew else None
        return Keyring(source, self.client_id, state_dir, shared) if source else None

    def renewal(self, identity: tokens.Identity, context: Context) -> Renewal | None:
        """What renews the key of ``identity``."""
        if (ring := self._ring(context.state_dir, context.shared)) is None:
            return None
        root = self.api_base or GRAPH[self.cloud]
        application = Application(self.object_id, self.certificate_id, root)
        return Renewal(replace(identity, resource=GRAPH[self.cloud]), ring, application, context)

    def examine_right(self, identity: tokens.Identity) -> Examined:
        """What is wrong with its files, and when they or the secret end. Reads them; asks nobody."""
        yield from tokens.examine(identity)
        if identity.pair is not None:
            yield from self._examine_renewed(identity.pair)
        if self.client_secret_expires:
            yield Ending(("client_secret_expires",), "the client secret", _midnight(self.client_secret_expires))

    def _examine_renewed(self, current: Callable[[], Pair]) -> Examined:
        keys = ("certificate_renew",)
        if not self.certificate_id:
            text = "without certificate_id the first certificate has to be removed by hand once it is renewed"
            yield Finding(keys, f"{text}: App registrations > Certificates & secrets shows it", fatal=False)
        with suppress(Unusable, Unkept, Unreadable):  # told of certificate_file, or when a token is needed
            pair = current()
            yield Ending(keys, "the certificate", pair.ends, pair.begins, renews=True)

    def tell_of_secret(self, name: str, credential_ends: Callable[[str, float], None]) -> None:
        """When the client secret ends, where the settings say so."""
        if self.client_secret_expires:
            credential_ends(name, _midnight(self.client_secret_expires).timestamp())


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
