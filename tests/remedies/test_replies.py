"""docs/replies.md tells for each reason what the commands and the page tell: its table is made from the same one.

``python -m tests.remedies.test_replies`` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.config.models import BackendSettings, Settings
from gateway.events import REASONS
from gateway.refusals import Refused
from gateway.remedies import remedy
from tests.remedies.test_remedies import row

FILE = Path(__file__).parents[2] / "docs" / "replies.md"
BEGIN, END = "<!-- made by tests/remedies/test_replies.py -->\n", "<!-- end -->\n"
SETTINGS = Settings.model_validate(
    {
        "hostname": "relay.example.com",
        "state_dir": Path("/var/lib/gateway"),
        "listeners": {"devices": {"bind": "192.0.2.1:25", "tls": "starttls"}},
        "auth": {"keys": {"corp": {"algorithm": "RS256", "jwks_url": "https://login.example.com/keys"}}},
        "clients": {
            "printers": {"networks": ["192.0.2.0/27"], "senders": ["*@example.com"], "recipients": ["*@example.com"],
                         "rate": "60/minute"},
            "copier": {"password_hash": "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43},
        },
        "backends": {"office": BackendSettings(type="graph"), "smart": BackendSettings(type="smtp")},
        "routes": [{"recipients": ["*@example.com"], "backend": ["office"]}],
    }
)  # fmt: skip
SAID = {
    "sender_denied": {"sender": "copier@dev.local", "text": "<copier@dev.local>: sender not allowed"},
    "recipient_denied": {"recipients": ("j.doe@mail.example",)},
    "no_route": {"recipients": ("j.doe@mail.example",)},
    "too_big": {"size": 9_200_000, "text": 'than the 3000000 octets allowed here, the limit of backend "office"; '
                                           "set backends.office.large_messages: draft"},
    "cannot_carry": {"text": 'backend "office" cannot send with the null sender <>'},
    "auth_failed": {"client": "", "user": "copier", "stage": "auth"},
    "bad_address": {"sender": "root", "text": "not an address: root"},
    "bad_syntax": {"text": "Syntax: MAIL FROM:<address>"},
    "bad_sequence": {"text": "Send EHLO first"},
    "bad_message": {"text": "Message has no header", "stage": "data"},
    "line_too_long": {"text": "A line is longer than 65536 octets", "stage": "data"},
    "tls_failed": {"detail": 'the client speaks other versions of TLS; min_tls: "1.0"', "stage": "connect"},
    "proxy_header": {"detail": "no header of the PROXY protocol came within 5 seconds", "stage": "connect"},
    "too_many_connections": {"text": "Too many connections from your address", "stage": "connect"},
    "too_many_failures": {"user": "copier", "stage": "auth"},
    "wrong_network": {"client": "copier", "stage": "auth"},
    "wrong_user": {"user": "billing", "detail": "jti 4f2a; sub app; the user name is jwt or app", "stage": "auth"},
    "unknown_client": {"detail": "jti 4f2a; sub billing", "stage": "auth"},
    "token_malformed": {"user": "jwt", "detail": "128 characters", "stage": "auth"},
    "token_signature": {"detail": "jti 4f2a; sub billing; 255 characters", "stage": "auth"},
    **{name: {"detail": "jti 4f2a; sub billing", "stage": "auth"} for name in
       ("token_expired", "token_not_yet", "token_revoked", "token_unknown_key", "token_claims", "token_audience")},
}  # fmt: skip
CLIENTLESS = ("relay_denied", "auth_required", "tls_required", "unknown_client", "auth_failed", "token_expired")


def table() -> Iterator[str]:
    yield "| reason | what it says, for example | what to do |\n| --- | --- | --- |\n"
    for reason in sorted(REASONS):
        client = "" if reason in CLIENTLESS else "printers"
        given = {"listener": "devices", "stage": "mail", "peer": "192.0.2.41", "client": client, **SAID.get(reason, {})}
        cure = remedy(row(Refused(reason=reason, **given)), SETTINGS)
        paste = "; it gives the lines to paste" if cure.yaml else ""
        command = f"; `{cure.command}`" if cure.command else ""
        yield f"| `{reason}` | {_cell(cure.why)} | {_cell(cure.fix).rstrip('.:')}{paste}{command} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def written() -> str:
    return FILE.read_text().partition(BEGIN)[2].partition(END)[0]


def test_the_table_is_that_of_the_code() -> None:
    """Words change in one place."""
    assert written() == "".join(table()), "run: python -m tests.remedies.test_replies"


if __name__ == "__main__":
    text = FILE.read_text()
    head, _, rest = text.partition(BEGIN)
    FILE.write_text(f"{head}{BEGIN}{''.join(table())}{END}{rest.partition(END)[2]}")
