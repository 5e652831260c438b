"""Files of certificate authorities that settings name: what is wrong with them, and until when they are good."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from gateway.config.finding import Ending, Examined, Finding
from gateway.pem import complaint


def examine_authorities(file: Path | None, *, fatal: bool = True) -> Examined:
    """Whether ``ca_file`` can be trusted from. Reads it; asks nobody."""
    if file is None:
        return
    keys = ("ca_file",)
    try:
        trusted = ssl.create_default_context(cafile=file).get_ca_certs()
    except ssl.SSLError:
        yield Finding(keys, f"{file} {complaint(file.read_bytes(), 'certificate')}", fatal=fatal)
    except OSError as error:
        yield Finding(keys, f"{file}: {error.strerror}", fatal=fatal)
    else:
        if ends := [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in trusted]:
            yield Ending(keys, "the last certificate in it", datetime.fromtimestamp(max(ends), UTC))
