"""The registry: every backend by a line, and nothing loaded that the settings do not name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gateway.backends import BACKENDS, settings_types

LIBRARIES = {"aiosmtplib", "google", "msal", "aiohttp", "httpx", "httpx_aiohttp", "cryptography"}
NAMES = f"import json, sys; print(json.dumps(sorted({LIBRARIES!r} & set(sys.modules))))"
OWN = "import json, sys; print(json.dumps([name for name in sys.modules if name.startswith('gateway.backends.')]))"


def printed(code: str) -> list[list[str]]:
    """What a fresh interpreter prints, line by line."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_library_is_loaded_that_no_setting_asks_for() -> None:
    """Neither for the registry, nor for the names in it, nor for settings without a network: half a second of every
    command.
    """
    steps = (
        "import gateway.backends",
        "from gateway.backends import settings_types; sorted(settings_types()); 'smtp' in settings_types()",
        "settings_types()['capture'](directory='box')",
    )
    assert printed("\n".join(f"{step}; {NAMES}" for step in steps)) == [[], [], []]


def test_only_the_backends_that_the_settings_name_are_loaded() -> None:
    """And Google's and Microsoft's libraries not even then: they are for whoever needs a token."""
    given = {"mailbox": "a@x.example", "service_account_file": "sa.json"}
    code = f"from gateway.backends import settings_types; settings_types()['gmail'].model_validate({given!r})"
    loaded, libraries = printed(f"{code}; {OWN}; {NAMES}")
    assert "gateway.backends.google.gmail" in loaded
    assert not [name for name in loaded if name.split(".")[2] in ("microsoft", "json", "smtp", "smtp2go", "capture")]
    assert not {"google", "msal"} & set(libraries)


def test_every_line_leads_to_settings_of_that_type() -> None:
    """A name with a typing error would only be found by whoever configures it."""
    assert {kind: settings.model_fields["type"].default for kind, settings in settings_types().items()} == {
        kind: kind for kind in BACKENDS
    }
    with pytest.raises(KeyError):
        settings_types()["smpt"]
