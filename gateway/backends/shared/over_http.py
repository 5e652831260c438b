"""What the settings of every backend that speaks HTTPS have in common: whom to trust besides, and by which proxy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, SecretStr

from gateway.config.authorities import examine_authorities
from gateway.config.finding import Examined
from gateway.config.models import BackendSettings
from gateway.config.section import Section
from gateway.proxies import DIRECT, parse_proxy

if TYPE_CHECKING:  # its libraries are the slowest to load, and settings need none of them
    from gateway.fetch import Fetch


def _proxy(secret: SecretStr) -> SecretStr:
    if (text := secret.get_secret_value()) != DIRECT:
        parse_proxy(text)
    return secret


class HttpWay(Section):
    """``ca_file``: authorities to trust beside the system's, for the API and for whoever gives tokens.

    ``proxy`` takes the place of HTTPS_PROXY; "direct" is none. It is a secret, since a password may stand in it.
    """

    open_words: ClassVar[frozenset[str]] = frozenset((DIRECT,))
    ca_file: Path | None = None
    proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = None

    def way(self, fetch: Fetch, kept: Callable[[str, str], None] = lambda files, why: None) -> Fetch:
        """``fetch`` as these settings want it. Raises OSError for a ``ca_file`` that cannot be used."""
        return fetch.by(self.ca_file, self.proxy.get_secret_value() if self.proxy else None, kept)


class OverHttpSettings(HttpWay, BackendSettings):
    """A backend that is an API."""

    def examine(self, name: str, state_dir: Path) -> Examined:
        yield from examine_authorities(self.ca_file)

    @property
    def calls(self) -> bool:
        return True
