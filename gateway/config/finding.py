"""What somebody who read the settings, or a file that they name, has to say about one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.config.document import Keys, dotted


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong at ``keys``; where it is not ``fatal`` a service can run with it. No secrets in the text."""

    keys: Keys
    text: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """What the setting at ``keys`` names, such as "the certificate", is good until ``ends``, from ``begins``; aware.

    ``renews``: by itself, 30 days before."""

    keys: Keys
    what: str
    ends: datetime
    begins: datetime | None = None
    renews: bool = False


Examined = Iterator[Finding | Ending]


class Unfit(ValueError):
    """A setting that cannot be used. The text begins with its dotted name."""

    def __init__(self, keys: Keys, text: str) -> None:
        super().__init__(f"{dotted(keys)}: {text}")
        self.finding = Finding(keys, text)


def below(above: Keys, examined: Examined) -> Examined:
    """The same with keys that begin with ``above``."""
    for one in examined:
        yield replace(one, keys=(*above, *one.keys))
