"""Whether this process may open as many files as its settings may need."""

from __future__ import annotations

import resource

from gateway.config.models import Settings

DESCRIPTORS = 300  # open files besides client connections: spool, HTTP, upstream, alerts of failed handshakes


def lacking(settings: Settings) -> str:
    """Why they are too few, "" where they are enough."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.limits.connections + DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return ""
    return f"limits.connections needs {needed} open files, this process may have {soft} (ulimit -n)"
