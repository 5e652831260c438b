"""The certificates that a smarthost's own is checked against."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from gateway.config.document import Keys
from gateway.config.finding import Ending, Examined, Finding
from gateway.pem import complaint


def examine(keys: Keys, file: Path, *, used: bool) -> Examined:
    """Whether ``file`` can be trusted from, and until when. What is not ``used`` hinders nobody. Blocks."""
    try:
        trusted = ssl.create_default_context(cafile=file).get_ca_certs()
    except ssl.SSLError:
        yield Finding(keys, f"{file} {complaint(file.read_bytes(), 'certificate')}", fatal=used)
        return
    except OSError as error:
        yield Finding(keys, f"{file}: {error.strerror}", fatal=used)
        return
    if ends := [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in trusted]:
        yield Ending(keys, "the last certificate in it", datetime.fromtimestamp(max(ends), UTC))
