"""This machine, as far as its files under /proc, /sys and /etc tell of it. All of it blocks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path

_SECONDS = 5.0  # for a program of the system
_LOW_PORTS = 1024
_BIND = 1 << 10  # CAP_NET_BIND_SERVICE (linux/capability.h)


@dataclass(frozen=True, slots=True)
class Host:
    """``root`` is where its files are; ``environ`` is that of this process."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def addresses(self) -> list[str]:
        """The addresses that this machine listens at, loopback first; no link-local ones, which need an interface."""
        found: list[IPv4Address | IPv6Address] = []
        lines = self.read("proc/net/fib_trie").splitlines()
        for line, kind in pairwise(lines):
            if kind.strip().startswith("/32 host LOCAL"):
                with suppress(ValueError):
                    found.append(ip_address(line.strip(" |-")))
        for line in self.read("proc/net/if_inet6").splitlines():
            with suppress(ValueError):
                found.append(IPv6Address(int(line.split()[0], 16)))
        usable = [one for one in dict.fromkeys(found) if not one.is_link_local and not one.is_multicast]
        return [str(one) for one in sorted(usable, key=lambda one: (not one.is_loopback, one.version, int(one)))]

    def may_bind(self, port: int) -> bool:
        """Whether this process may listen at a port that low."""
        low = self.read("proc/sys/net/ipv4/ip_unprivileged_port_start").strip()
        if port >= (int(low) if low.isdigit() else _LOW_PORTS):
            return True
        with suppress(StopIteration, ValueError):
            line = next(one for one in self.read("proc/self/status").splitlines() if one.startswith("CapEff:"))
            return bool(int(line.split()[1], 16) & _BIND)
        return os.geteuid() == 0

    def firewall(self) -> str:
        """The firewall that is managed here: ufw, firewalld or "", which may be none or one that is not known."""
        if "ENABLED=yes" in self.read("etc/ufw/ufw.conf"):
            return "ufw"
        return "firewalld" if (self.root / "run/firewalld.pid").exists() else ""

    def read(self, path: str) -> str:
        """A file's text, "" where there is none for us."""
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return ""

    def ask(self, *command: str) -> str:
        """What a program of the system prints, "" where there is none or it fails."""
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(  # noqa: S603 - no text of strangers
                command, capture_output=True, text=True, timeout=_SECONDS, check=True, stdin=subprocess.DEVNULL
            )  # fmt: skip
            return done.stdout
        return ""


def reached(host: str, addresses: Sequence[str]) -> list[str]:
    """Those of this machine's addresses by which a socket that is bound to ``host`` is reached."""
    wide = {"0.0.0.0": 4, "::": 6, "": 4}  # noqa: S104 - compared, not bound
    if host not in wide:
        return [host]
    return [one for one in addresses if ip_address(one).version == wide[host]]
