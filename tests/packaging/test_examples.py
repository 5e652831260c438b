"""Every settings example in the documentation is accepted by the loader."""

from __future__ import annotations

import grp
import json
import os
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.backends import settings_types
from gateway.config.loading import Loaded, load
from gateway.readiness import ready
from tests.packaging.kit import PAGES, Block, blocks
from tests.test_readiness import SERVICE, SIGN_IN, certificate, private, public, rsa

# What an example may refer to without showing it.
AROUND = {
    "listeners": {"local": {"bind": "0.0.0.0:8025"}},
    "clients": {"tokens": {"token": "*"}, "printers": {"networks": ["192.0.2.0/24"]}},
    "backends": {
        "s2g": {"type": "smtp2go", "api_key_file": "around.key"},
        "smart": {"type": "smtp", "host": "smtp.example.net"},
    },
    "routes": [{"backend": ["s2g", "smart"]}],
}
NOT_OF_THE_EXAMPLE = ("never used", "may not write to it", "bind: is IPv6 only", "no route and no client leads to it")
NOT_OF_THE_EXAMPLE += ("nobody has signed in yet",)  # that is the reader's next step
FILES = re.compile(r"(?:_file|certificate|private_key): ([\w.-]+)")  # what an example names must lie beside it
OTHER_PROGRAMS = {"services", "groups"}  # compose.yaml, Prometheus rules
EXAMPLES = [
    block for page in PAGES for block in blocks(page, "yaml") if not OTHER_PROGRAMS & yaml.safe_load(block.text).keys()
]


@cache
def contents() -> dict[str, str]:
    """By how a file's name ends: what really works."""
    key = rsa()
    chain = certificate(key)
    return {
        "issuer.pem": public(ec.generate_private_key(ec.SECP256R1())),
        "token.key": private(Ed25519PrivateKey.generate()),
        "tls.key": private(key),
        ".crt": chain,
        ".url": "https://alerts.example.com/gateway\n",
        ".pem": chain + private(key),
        "identity-token": "eyJhbGciOiJub25lIn0.eyJpc3MiOiJpIn0.x",
        "sa.json": json.dumps(SERVICE | {"private_key": private(key)}),
        ".json": json.dumps(SIGN_IN | {"account": "noreply@example.com"}),
    }


def load_text(folder: Path, text: str) -> Loaded:
    for name in FILES.findall(text):
        plain = "an example, and long enough for every check of its length\n"
        found = next((text for end, text in contents().items() if name.endswith(end)), plain)
        (folder / name).write_text(found)
        (folder / name).chmod(0o600)
    folder.chmod(0o711)
    path = folder / "config.yaml"
    text = text.replace("$scrypt$...", "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43)
    path.write_text(text.replace("socket_group: gateway", f"socket_group: {grp.getgrgid(os.getegid()).gr_name}"))
    path.chmod(0o600)
    return load(path, {"STATE_DIRECTORY": str(folder)}, settings_types())


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"{block.page}:{block.line}")
def test_example_is_valid(block: Block, tmp_path: Path) -> None:
    """What a reader copies must start, and without a warning; sections that the example leaves out are filled in."""
    given = yaml.safe_load(block.text)
    missing = {key: part for key, part in AROUND.items() if key not in given}
    if len(given.get("backends", ())) == 1:
        missing.pop("routes", None)  # everything goes there
    if "backends" not in given:  # else how senders hear of failures is the example's own to say
        missing["bounces"] = given.get("bounces", {"from": "noreply@example.com"})
    loaded = load_text(tmp_path, block.text + (yaml.safe_dump(missing) if missing else ""))
    found = ready(loaded, datetime.now(UTC)).warnings
    assert [line for line in found if not any(words in line for words in NOT_OF_THE_EXAMPLE)] == []


def test_the_hs256_example_needs_nothing_else(tmp_path: Path) -> None:
    """The README promises: with this file and a secret, any HS256 token may log in."""
    block = next(block for block in EXAMPLES if block.page == "README.md" and "HS256" in block.text)
    loaded = load_text(tmp_path, block.text)
    assert loaded.settings.auth.keys["app"].algorithm == "HS256"
    assert loaded.settings.clients["tokens"].token == "*"


def test_there_are_examples() -> None:
    """An empty parametrisation would pass."""
    assert len(EXAMPLES) > 8
