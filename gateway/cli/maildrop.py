"""Where gateway-sendmail leaves a message while no service takes it. Standard library and yaml only, and that late."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from gateway.drop import folder
from gateway.drop.folder import Places


def find(host: str, environ: Mapping[str, str]) -> Places | None:
    """The maildrop of the service at ``host``, if that is this machine and the maildrop is open to us.

    It is the service that makes it: what is left in a folder of nobody's would never be sent. $GATEWAY_MAILDROP names
    it where it cannot be found.
    """
    if given := environ.get("GATEWAY_MAILDROP"):
        candidates = [Path(given)]
    elif not _here(host):
        return None
    else:
        from gateway.config import locate

        candidates = [state / folder.MAILDROP for state in locate.state_dirs(locate.find_file(None, environ), environ)]
    found = (folder.maildrop(path.parent) for path in candidates if path.name == folder.MAILDROP)
    return next((places for places in found if os.access(places.new, os.W_OK | os.X_OK)), None)


def _here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
