"""What the command line of ``gateway setup`` said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.cli.common import chosen_file
from gateway.cli.errors import Failed
from gateway.cli.setup_ask import secret_from
from gateway.config import locate

_ANSWERS = ("host", "port", "tls", "username", "region", "tenant", "client_id", "certificate_file",
            "service_account_file", "authorized_user_file")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line said; None is not said. ``answers`` are those about the provider, by their keys."""

    kind: str | None = None
    name: str | None = None
    sender: str | None = None
    networks: tuple[str, ...] = ()
    login: str | None = None
    binds: tuple[str, ...] = ()
    tls_certificate: str | None = None
    tls_key: str | None = None
    route: str | None = None
    test_to: str | None = None
    dry_run: bool = False
    no_check: bool = False
    yes: bool = False
    mailboxes: tuple[str, ...] = ()
    tenant_wide: bool = False
    browser: bool = False
    resume: bool = False
    remove: bool = False
    graph_url: str = ""
    login_url: str = ""
    client_file: str | None = None
    more: Mapping[str, str | bool] = field(default_factory=dict)  # settings of the backend beside what is asked
    notes: tuple[str, ...] = ()  # what is left to do, beside what is found out
    answers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)  # made already, by the names that answers give them

    def only_microsoft(self) -> str:
        """An option that means nothing without it, "" for none."""
        told = {
            "--mailbox": self.mailboxes, "--tenant-wide": self.tenant_wide, "--browser": self.browser,
            "--resume": self.resume, "--remove": self.remove,
        }  # fmt: skip
        return next((option for option, given in told.items() if given), "")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Given:
        """Of click's options. Raises Failed for a secret that cannot be read."""
        rest = dict(options)
        answers = {key: rest.pop(key) for key in _ANSWERS if key in rest}
        if (file := rest.pop("secret_file", None)) is not None:
            answers["secret"] = secret_from(file)
        return cls(**rest, answers={key: value for key, value in answers.items() if value is not None})


def target() -> Path:
    """The file that settings go into. Raises Failed where nothing says which."""
    file = locate.find_file(chosen_file(), os.environ)
    if file is None and os.geteuid() == 0:
        file = locate.SYSTEM_FILE
    if file is None:
        raise Failed(
            "say where the settings go: --config config.yaml; or as root, then they go to /etc/gateway/config.yaml"
        )
    return file.absolute()
