"""Whom TLS to others trusts: this machine's own store, what settings name beside it, and a certificate of ours."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import certifi

from gateway.pools import read_files

# Where systems keep their authorities, for a Python whose OpenSSL looks elsewhere (Go: crypto/x509/root_linux.go).
PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL 6
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL 7 and later
    "/etc/ssl/cert.pem",  # BSD, macOS
)
VERSIONS = {  # of TLS, as settings call them
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_TIMES = {  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
    9: "set the clock of this machine (timedatectl shows it): it is before the certificate's time",
    10: "the server needs a new certificate; or set the clock of this machine (timedatectl shows it), if it is ahead",
}
Store = tuple[str | None, str | None]  # a file, a folder of hashed names


def system_store(places: Sequence[str] = PLACES) -> Store:
    """$SSL_CERT_FILE and $SSL_CERT_DIR alone where they are set, else the system's; on a bare machine certifi's."""
    given = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    if any(given):
        return given
    paths = ssl.get_default_verify_paths()
    folder = paths.capath if paths.capath and _filled(paths.capath) else None
    if paths.cafile or folder:
        return paths.cafile, folder
    if found := next((place for place in places if Path(place).is_file()), None):
        return found, None
    return certifi.where(), None


def public_store() -> Path:
    """The authorities that the world knows, whatever this machine trusts besides."""
    return Path(certifi.where())


def time_fix(error: BaseException) -> str:
    """What to do about a certificate that is refused for its times, "" for any other reason."""
    return _TIMES.get(getattr(error, "verify_code", 0), "")


def _filled(folder: str) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:
        return any(entries)
    return False


class Trust:
    """A context for TLS handshakes, loaded anew when one of its files has changed.

    ``ca_file`` counts beside the system's store, with ``alone`` in its place. ``certificate`` and ``private_key`` are
    shown to servers that ask for one. ``kept`` is told the file and why when what has changed cannot be used: then the
    old one stays.
    """

    def __init__(
        self,
        ca_file: Path | None = None,
        *,
        alone: bool = False,
        certificate: Path | None = None,
        private_key: Path | None = None,
        kept: Callable[[str, str], None] = lambda file, why: None,
    ) -> None:
        self._ca_file = ca_file
        self._alone = alone and ca_file is not None
        self._pair = (certificate, private_key or certificate) if certificate else None
        self._kept = kept
        self._store: Store = (None, None) if self._alone else system_store()
        self._watched = [Path(one) for one in (*self._files(), *self._store) if one]
        self._seen: object = None
        self._reading = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def load(self) -> ssl.SSLContext:
        """Reads the files. Blocks, some 30 ms for a system's store. Raises OSError, of which ssl.SSLError is one."""
        self._seen = self._stamp()
        self._context = self._read()
        return self._context

    def unchanged(self) -> ssl.SSLContext | None:
        """The one in use while its files are as they were when they were read: a stat call for each. Else None."""
        return self._context if self._context and self._stamp() == self._seen else None

    async def current(self) -> ssl.SSLContext:
        """As ``unchanged``; what has changed is read in a thread. Raises OSError if there is none yet."""
        stamp = self._stamp()
        if (before := self._context) is None:
            return await read_files(self._first)
        if stamp != self._seen:
            self._seen = stamp  # who comes meanwhile goes on with the old one
            try:
                self._context = await read_files(self._read)
            except OSError as error:
                self._kept(", ".join(map(str, self._files())), str(getattr(error, "reason", None) or error.strerror))
        return self._context or before

    def _first(self) -> ssl.SSLContext:
        with self._reading:  # many may need it at once
            return self._context or self.load()

    def _read(self) -> ssl.SSLContext:
        file, folder = self._store
        context = ssl.create_default_context(cafile=self._ca_file if self._alone else file, capath=folder)
        if self._ca_file and not self._alone:
            context.load_verify_locations(self._ca_file)
        # Python 3.13 asks of an authority what many companies' own do not have, and OpenSSL, curl and browsers do not.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._pair:
            certificate, key = self._pair
            context.load_cert_chain(certificate, key, password="")  # or OpenSSL asks at the terminal
        return context

    def _files(self) -> list[Path]:
        return [path for path in (self._ca_file, *(self._pair or ())) if path]

    def _stamp(self) -> object:
        found: list[object] = []
        for path in self._watched:
            try:
                stat = path.stat()
            except OSError as error:
                found.append((path, error.errno))
            else:
                found.append((path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return found
