"""By what a start knows a spool's file for the one that a clean stop closed whole: it need not be looked through.

Only until the machine starts anew: so long the kernel has what was written, and a stop adds nothing that could damage
it. A file that somebody wrote to, restored or copied is another one.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

_LAYOUT = struct.Struct("<8s16sQQQqq")
_MAGIC = b"gwclean1"


def record(spool: Path, boot: bytes) -> bytes:
    """Of a file that nobody writes to any more; b"" where its system keeps no exact times. Raises OSError.

    Its time of change is put back by a nanosecond, so that whatever comes later, even within the same tick of the
    clock, gives it another one.
    """
    found = spool.stat()
    os.utime(spool, ns=(found.st_atime_ns, found.st_mtime_ns - 1))
    if spool.stat().st_mtime_ns != found.st_mtime_ns - 1:
        return b""
    data = _packed(spool, boot)
    return data + struct.pack("<I", zlib.crc32(data))


def same(spool: Path, known: bytes, boot: bytes) -> bool:
    """Whether it is untouched since this ``known`` record of it was made, and nothing waits in a log."""
    if len(known) != _LAYOUT.size + 4 or boot == bytes(16):
        return False
    try:
        data = _packed(spool, boot)
        log = spool.with_name(f"{spool.name}-wal")
        return known == data + struct.pack("<I", zlib.crc32(data)) and not (log.exists() and log.stat().st_size)
    except OSError:
        return False


def _packed(spool: Path, boot: bytes) -> bytes:
    found = spool.lstat()
    return _LAYOUT.pack(_MAGIC, boot, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
