"""A token of another issuer, such as a Kubernetes cluster, that stands for an application's secret.

Whoever issues it renews the file about every hour, so it is read for every token of ours.
learn.microsoft.com/entra/workload-id/workload-identity-federation
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.backends.shared.oauth import claims
from gateway.config.finding import Examined, Finding

_SKEW = timedelta(minutes=5)  # of two clocks, which Entra allows too
_RENEWER = "see who renews the file (Kubernetes: the projected volume of the service account)"


class Unusable(Exception):
    """There is no token in it that can be shown. The text holds nothing of it."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


def read(file: Path, now: datetime) -> str:
    """The token. Blocks. Raises Unusable: missing, empty, no token, or one that has ended."""
    readable = "see that the token is there, and that the service can read it"
    try:
        token = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise Unusable(f"{file}: {getattr(error, 'strerror', None) or 'not a token'}", readable) from None
    if not token:
        raise Unusable(f"{file} is empty", _RENEWER)
    if not re.fullmatch(r"[!-~]+", token):
        raise Unusable(f"{file}: not a token", readable)
    ends = _ends(token)
    if ends is not None and ends < now - _SKEW:
        raise Unusable(f"the token in {file} ended at {ends:%Y-%m-%d %H:%M:%SZ}", _RENEWER)
    return token


def examine(file: Path) -> Examined:
    """What is wrong with it now; it may be right in a minute, so nothing is fatal. Blocks; asks nobody."""
    try:
        read(file, datetime.min.replace(tzinfo=UTC) + _SKEW)
    except Unusable as error:
        yield Finding(("federated_token_file",), f"{error}; {error.fix}", fatal=False)


def _ends(token: str) -> datetime | None:
    """By its own claim, which nobody has verified: only Entra can judge the token."""
    try:
        return datetime.fromtimestamp(float(claims(token)["exp"]), UTC)
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None
