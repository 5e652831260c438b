"""Settings as far as a running gateway can take them: its spool stays where it is, and what lies beside it."""

from __future__ import annotations

from pathlib import Path

from gateway.config.models import Settings


def in_place(wanted: Settings, running: Settings) -> Settings:
    """The same with the spool of those that run, and their ``state_dir``: the admin socket and keys that would lie in
    the other one lie in this."""
    state_dir = running.state_dir

    def stays(path: Path | None) -> Path | None:
        beside = path is not None and wanted.state_dir in path.parents
        return state_dir / path.relative_to(wanted.state_dir) if path and beside else path

    http = wanted.http.model_copy(update={"socket": stays(wanted.http.socket)})
    keys = {
        name: key.model_copy(update={"private_key_file": stays(key.private_key_file)})
        for name, key in wanted.auth.keys.items()
    }
    auth = wanted.auth.model_copy(update={"keys": keys})
    return wanted.model_copy(update={"state_dir": state_dir, "spool": running.spool, "http": http, "auth": auth})
