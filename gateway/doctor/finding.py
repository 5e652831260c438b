"""One thing that the doctor has to say, and the closed set of what that can be. docs/doctor.md explains each key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["bad", "warn", "unknown", "note", "good"]
LEVELS: tuple[Level, ...] = ("bad", "warn", "unknown", "note", "good")  # worst first

# The keys of each area, in the order in which an operator would look.
AREAS: dict[str, tuple[str, ...]] = {
    "settings": ("settings_wrong", "settings_doubtful", "settings_waiting", "settings_restart", "settings_good"),
    "listeners": (
        "port_taken", "port_privileged", "port_other", "port_free", "other_mta", "listener_silent", "listener_tls",
        "listener_firewall", "listener_good",
    ),
    "certificates": (
        "certificate_unusable", "certificate_ended", "certificate_ends", "certificate_early", "certificate_name",
        "certificate_chain", "certificate_order", "certificate_self_signed", "certificate_private",
        "certificate_weak", "certificate_purpose", "certificate_good", "tls_old_refused", "tls_old_offered",
        "tls_offered",
    ),
    "backends": (
        "backend_unbuilt", "backend_name", "backend_unreachable", "backend_certificate", "backend_inspected",
        "backend_reached", "backend_fails", "backend_rests", "backend_good", "permission_missing", "permission_unseen",
        "permission_excess", "permission_good", "upstream_size", "upstream_extensions",
    ),
    "senders": (
        "sender_refused", "sender_unverified", "sender_unseen", "sender_pattern", "sender_good", "mailbox_missing",
        "mailbox_unseen", "mailbox_good",
    ),
    "dns": (
        "dns_unanswered", "dns_many", "domain_missing", "domain_private", "spf_missing", "spf_several", "spf_open",
        "spf_broken", "spf_lookups", "spf_excludes", "spf_unseen", "spf_good", "dkim_missing", "dkim_broken",
        "dkim_weak", "dkim_unseen", "dkim_good", "return_path_missing", "return_path_good", "dmarc_missing",
        "dmarc_broken", "dmarc_unaligned", "dmarc_none", "dmarc_unseen", "dmarc_good", "mx_missing", "mx_good",
    ),
    "machine": (
        "clock_wrong", "clock_unsynchronised", "clock_stepped", "clock_unseen", "clock_good", "disk_full",
        "disk_low", "disk_kind", "disk_good", "descriptors_few", "descriptors_good", "loop_missing", "loop_good",
        "secret_open", "secrets_good", "socket_open", "socket_missing", "socket_good", "unit_root", "unit_missing",
        "unit_watchdog", "unit_good", "backup_unseen",
    ),
    "spool": (
        "spool_damaged", "spool_message_damaged", "spool_unseen", "spool_log_large", "spool_good", "database_silent",
        "database_snapshot", "database_vacuum", "database_replicas", "database_connections", "database_good",
        "backlog_old", "backlog_grows", "backlog_good",
    ),
    "relay": ("relay_open", "relay_meant", "relay_unseen", "relay_local", "relay_refused"),
}  # fmt: skip
# What any area may say of itself.
EVERYWHERE = ("needs_service", "part_late", "part_failed")
KEYS = {key: area for area, keys in AREAS.items() for key in keys}


_SETTING = re.compile(r"((?:auth|backends|bounces|clients|http|limits|listeners|log|retry)(?:\.\w+)+): ([^\n]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``what`` is so, ``fix`` says what to do, ``paste`` is exactly that, line by line. Nothing in it is a secret.

    ``said`` are the other side's own words. ``about`` is the thing meant: "listeners.devices", "example.com". Raises
    ValueError for a key that is not of its area.
    """

    key: str
    area: str
    level: Level
    what: str
    fix: str = ""
    said: str = ""
    paste: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        if self.key not in (*AREAS[self.area], *EVERYWHERE):
            raise ValueError(f"{self.key} is no key of {self.area}")


def finding(
    key: str, level: Level, what: str, fix: str = "", *, said: str = "", paste: str = "", about: str = ""
) -> Finding:
    """One whose key tells its area. What is to be pasted into the settings is written as it stands there."""
    return Finding(
        key=key, area=KEYS[key], level=level, what=what, fix=fix, said=said, paste=_as_yaml(paste), about=about
    )  # fmt: skip


def _as_yaml(paste: str) -> str:
    """``backends.office.max_size: 3MB`` as three lines: no dot leads into a section of a file."""
    found = _SETTING.fullmatch(paste)
    if not found:
        return paste
    *above, last = found[1].split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(above)]
    return "\n".join([*lines, f"{'  ' * len(above)}{last}: {found[2]}"])


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Within a level in the order of the areas, and of what was looked at."""
    areas = list(AREAS)
    return tuple(sorted(findings, key=lambda one: (LEVELS.index(one.level), areas.index(one.area), one.about)))
