"""docs/backends.md says what each backend carries; its table is made from ``Capabilities``, so that it cannot go stale.

``python -m tests.packaging.test_backends_page`` writes it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import BACKENDS, build, settings_types
from gateway.message import FEATURES
from gateway.model import Backend, CallsBack, Tracked
from tests.backends import kit
from tests.packaging.kit import ROOT

PAGE = ROOT / "docs" / "backends.md"
BEGIN, END = "<!-- made from Capabilities: begin -->\n", "<!-- made from Capabilities: end -->\n"
KEY = {"api_key": "key-0123456789"}
SETTINGS: dict[str, dict[str, Any]] = {
    "capture": {},
    "smtp": {"host": "smtp.example.net"},
    "smtp, preset: office365": {
        "type": "smtp",
        "preset": "office365",
        "mailbox": "noreply@example.com",
        "microsoft": {
            "tenant": "example.com",
            "client_id": "11111111-2222-3333-4444-555555555555",
            "client_secret": "s",
        },
    },
    "smtp2go": KEY,
    "gmail": {"mailbox": "noreply@example.com", "service_account_file": "sa.json"},
    "graph": {
        "mailbox": "noreply@example.com",
        "tenant": "example.com",
        "client_id": "11111111-2222-3333-4444-555555555555",
        "client_secret": "s",
    },
    "graph, large_messages: draft": {"type": "graph", "large_messages": "draft"},
    "js2mail": KEY,
    "justemails": KEY,
    "justemails, headers: true": {"type": "justemails", "headers": True, **KEY},
    "mailpass": KEY,
    "temp_mail": {"base_url": "https://mail.example.org", "token": "client"},
}
SETTINGS["graph, large_messages: draft"] |= SETTINGS["graph"]


def carries(*features: str) -> Callable[[Backend], str]:
    def cell(backend: Backend) -> str:
        limits = backend.capabilities
        if not limits.lacks & set(features):
            return "yes"
        return f"to {size(limits.whole_bytes)}" if limits.whole_bytes else "no"

    return cell


def size(octets: int) -> str:
    return "any" if octets >= 1_000_000_000 else f"{octets / 1e6:.1f} MB".replace(".0", "")


COLUMNS: dict[str, Callable[[Backend], str]] = {
    "size": lambda backend: size(backend.capabilities.max_bytes),
    "attachments": carries("attachments"),
    "images in the text": carries("inline_images"),
    "text and HTML": carries("both_bodies"),
    "Reply-To": carries("reply_to"),
    "own header fields": carries("headers"),
    "signed, encrypted": carries("signed", "encrypted"),
    "invitations": carries("calendar"),
    "null sender": lambda backend: "yes" if backend.capabilities.null_sender else "no",
    "From": lambda backend: "its own" if backend.capabilities.senders else "any it allows",
    "tells what became of it": lambda backend: (
        ", ".join(
            word for word, kind in (("asked", Tracked), ("calls back", CallsBack)) if isinstance(backend, kind)
        )
        or "no"
    ),
}  # fmt: skip


async def table(directory: Path) -> str:
    lines = ["| backend | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    async with kit.context(directory) as context:
        for name, given in SETTINGS.items():
            kind = given.get("type", name)
            backend = build(name, settings_types()[kind].model_validate({"type": kind, **given}), context)
            lines.append(f"| `{name}` | " + " | ".join(cell(backend) for cell in COLUMNS.values()) + " |")
            await backend.aclose()
    return "\n".join(lines) + "\n"


async def test_the_table_is_what_the_backends_say(tmp_path: Path) -> None:
    """The page holds exactly the table that the backends' own limits make."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, _ = rest.partition(END)
    assert before
    assert shown == await table(tmp_path)


def test_every_backend_has_a_row() -> None:
    """A new backend is in the table, or this fails."""
    assert {given.get("type", name) for name, given in SETTINGS.items()} == set(BACKENDS)


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_every_feature_is_explained(feature: str) -> None:
    """Whatever a refusal may name stands on the page."""
    assert f"`{feature}`" in PAGE.read_text()


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + asyncio.run(table(Path("/nonexistent"))) + END + after)
