"""The settings: what is wrong with the file, and what of it is not in force."""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.config import ConfigError
from gateway.config.show import diff, restart_keys
from gateway.doctor.finding import Finding, finding
from gateway.doctor.subject import Subject
from gateway.pools import read_files

_PLACE = re.compile(r"^.*?:\d+:\d+: ")
_KEY = re.compile(r"^([a-z_][\w.\[\]-]*): ")
_KEEPS = "the running service keeps its old settings; a restart would not come up"
_OPEN = re.compile(r"^(?P<file>.+?): every user of this machine can read")


async def look(subject: Subject, tell: Callable[[Finding], None]) -> None:
    try:
        loaded = await read_files(subject.read)
    except ConfigError as error:
        note = f"; {_KEEPS}" if subject.runs else ""
        for line in error.lines:
            tell(finding("settings_wrong", "bad", line, f"correct that place{note}", about=_about(line)))
        return
    for line in loaded.warnings:
        if ".certificate: " not in line and not _OPEN.match(line):  # these have areas of their own
            tell(
                finding("settings_doubtful", "warn", line, "correct it, or leave it if you mean it", about=_about(line))
            )
    if subject.at_start is not None:
        later = restart_keys(diff(subject.at_start, loaded.settings))
        waiting = [key for key in diff(subject.settings, loaded.settings) if key not in later]
        if waiting:
            what = f"the file was changed and is not in force: {', '.join(waiting)}"
            tell(finding("settings_waiting", "warn", what, "make the service read it", paste="gateway reload"))
        if later:
            what = f"this takes effect at a restart only: {', '.join(later)}"
            fix = "restart when it suits; clients are told to come back, mail is not lost"
            tell(finding("settings_restart", "warn", what, fix, paste="systemctl restart gateway"))
    tell(finding("settings_good", "good", f"{loaded.path or 'built-in default'} has no errors"))


def _about(line: str) -> str:
    found = _KEY.match(_PLACE.sub("", line))
    return found[1] if found else ""
