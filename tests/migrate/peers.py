"""Real mail programs as clients of a real gateway; what to write into their settings is read from docs/migrate.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from gateway.auth.passwords import hash_password
from tests.flow.kit import Gateway, free_port, smtp_sink, sunk

PAGE = Path(__file__).parent.parent.parent / "docs" / "migrate.md"
PASSWORD = "mnbvcxz23456789"
CONFIG = """
listeners:
  plain: {{bind: "127.0.0.1:{plain}"}}
  submission: {{bind: "127.0.0.1:{port}", tls: starttls, auth: required, certificate: tls.crt, private_key: tls.key}}
clients:
  local: {{networks: ["127.0.0.0/8"], recipients: ["*@example.net", "*@example.com"]}}
  web1: {{password_hash_file: web1.hash, senders: ["*@example.com"], recipients: ["*@example.net", "*@example.com"]}}
backends:
  sink: {{type: smtp, host: 127.0.0.1, port: {sink}, tls: none}}
"""
FULL = "limits: {spool_free: 99%}\n"  # 452 4.3.1 to everybody


@dataclass(frozen=True)
class Relay:
    """A gateway in front of a sink. ``folder`` can be entered by every user."""

    service: Gateway
    folder: Path
    port: int
    plain: int

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def lines(self, mark: str) -> str:
        """What the page says under this mark, for this gateway."""
        found = re.search(rf"<!-- client: {re.escape(mark)} -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert found, f"docs/migrate.md has no block {mark}"
        text = found[1].replace("relay.example.com", "localhost").replace("PASSWORD", PASSWORD)
        text = text.replace("/etc/ssl/certs/ca-certificates.crt", str(self.authority))
        return re.sub(r"\b587\b", str(self.port), re.sub(r"\]:25\b", f"]:{self.plain}", text))

    def got(self, marker: str) -> list[str]:
        return [text for text in sunk(self.folder / "sunk") if marker in text]

    def wait(self, marker: str, count: int = 1, seconds: float = 60) -> list[str]:
        self.service.wait(lambda: len(self.got(marker)) >= count, seconds)
        return self.got(marker)

    def full(self, full: bool) -> None:
        """Whether it puts all mail off."""
        text = self.service.file.read_text().replace(FULL, "")
        self.service.file.write_text(text + FULL * full)
        assert self.service.run("reload").returncode == 0
        self.service.wait(lambda: (self.service.get("/readyz")[0] == 503) == full)


@contextmanager
def relay(folder: Path) -> Iterator[Relay]:
    folder.chmod(0o755)
    port, plain, sink = free_port(), free_port(), free_port()
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    pair.private_key_pem.write_to_path(str(folder / "tls.key"))
    pair.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    (folder / "web1.hash").write_text(hash_password(PASSWORD, bytes(16)))
    for name in ("web1.hash", "tls.key"):
        (folder / name).chmod(0o600)
    config = CONFIG.format(plain=plain, port=port, sink=sink)
    with smtp_sink(folder / "sunk", sink), Gateway(folder, config) as service:
        yield Relay(service, folder, port, plain)


def message(marker: str, size: int = 0) -> bytes:
    """8-bit text as programs send it, and as much more."""
    head = f"From: alerts@example.com\nTo: you@example.net\nSubject: {marker}\nMIME-Version: 1.0\n"
    head += "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße aus Köln\n"
    return head.encode() + b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789\n" * (size // 59)


@contextmanager
def unpacked(tmp: Path, *packages: str) -> Iterator[Path]:
    """Debian packages that cannot be installed beside each other, unpacked into a folder."""
    if os.geteuid() != 0 or not shutil.which("apt-get") or not shutil.which("unshare"):
        pytest.skip("needs root, apt-get and unshare")
    for package in packages:
        done = subprocess.run(
            ["apt-get", "download", "-qq", package], cwd=tmp, capture_output=True, timeout=120, check=False
        )
        files = list(tmp.glob(f"{package}_*.deb"))
        if done.returncode or not files:
            pytest.skip(f"Debian package {package} is not to be had")
        subprocess.run(["dpkg", "-x", str(files[0]), str(tmp / "root")], check=True)
    yield tmp / "root"


INSIDE = """
set -e
mkdir -p $W/etc $W/etc.w
mount -t overlay overlay -o lowerdir=$R/usr:/usr /usr
mount -t overlay overlay -o lowerdir=$R/etc:/etc,upperdir=$W/etc,workdir=$W/etc.w /etc
mount --bind $W/spool /var/spool
mount --bind $W/lib /var/lib
exec sh -e $W/script "$@"
"""


@dataclass(frozen=True)
class Room:
    """A view of this machine with the unpacked programs in their places; nothing outside of ``folder`` is changed."""

    folder: Path
    root: Path

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.folder / "etc" / path.removeprefix("/etc/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def run(self, script: str, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        for name in ("spool", "lib", "etc"):
            (self.folder / name).mkdir(exist_ok=True, parents=True)
        self.folder.chmod(0o755)
        (self.folder / "script").write_text(script)
        environ = os.environ | {"R": str(self.root), "W": str(self.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        command = ["unshare", "-m", "sh", "-c", INSIDE, "sh", *words]
        return subprocess.run(command, input=data, env=environ, capture_output=True, timeout=120, check=False)
