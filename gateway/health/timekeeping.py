"""Whether the machine's clock follows one of the network, as far as its kernel knows."""

from __future__ import annotations

import ctypes
import sys

_SIZE = 256  # octets: more than struct timex has on any Linux (adjtimex(2)); all zero it only asks
_ERROR = 5  # TIME_ERROR: the clock is not synchronised


def synchronised() -> bool | None:
    """None where nobody can tell. A machine that gets its time from its host may say False."""
    if sys.platform != "linux":
        return None
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_SIZE))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _ERROR
