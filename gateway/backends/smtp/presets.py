"""What is known of providers' servers: where they are, and how much they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Preset = Literal["office365", "gmail", "hve", "acs"]

_SUBMISSION = {"port": 587, "tls": "starttls"}
_OF_A_MAILBOX = {"mailbox_concurrency": 3, "mailbox_rate": "30/minute"}
_EXCHANGE = 36_700_160  # bytes; Exchange's usual limit for a message
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # learn.microsoft.com/exchange/mail-flow-best-practices/how-to-set-up-a-multifunction-device-or-application-...
    # and .../office365/servicedescriptions/exchange-online-service-description/exchange-online-limits
    "office365": {
        "host": "smtp.office365.com", **_SUBMISSION, **_OF_A_MAILBOX, "max_recipients": 500, "max_size": _EXCHANGE,
    },
    # support.google.com/a/answer/166852; SIZE as its server tells it
    "gmail": {
        "host": "smtp.gmail.com", **_SUBMISSION, "mailbox_concurrency": 4, "max_recipients": 100,
        "max_size": 35_882_577,
    },
    # High Volume Email: learn.microsoft.com/exchange/mail-flow-best-practices/high-volume-mails-m365
    "hve": {"host": "smtp-hve.office365.com", **_SUBMISSION, "max_recipients": 50},
    # Azure Communication Services: learn.microsoft.com/azure/communication-services/concepts/service-limits
    "acs": {
        "host": "smtp.azurecomm.net", **_SUBMISSION, "concurrency": 10, "max_recipients": 50,
        "max_size": 7_500_000,  # 10 MB of request, and it counts base64
        "rate": "30/minute",
    },
}  # fmt: skip

LOGINS = {  # what each wants
    "office365": "microsoft with mailbox (docs/microsoft365.md), or username and password",
    "gmail": "google with mailbox (docs/gmail.md), or username and an app password",
    "hve": "microsoft with mailbox (docs/smarthost.md), or username and password",
    "acs": "username (the SMTP username) and password (the secret of its application)",
}


def filled(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with what their preset says of all that they leave out."""
    known = PRESETS.get(str(given.get("preset")), {})
    if "mailbox_concurrency" in known and given.get("mailbox") != "sender":
        known = {"concurrency": known["mailbox_concurrency"], **known}  # all are for the one mailbox
    return {**known, **given}
