"""What stands in the answers of Google's APIs that are no success."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.backends.shared.http import bounded

_RETRY_AFTER = re.compile(r"retry after (\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)", re.IGNORECASE)


def error_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """Reason and words of Google's error object; newer services give the reason in ``details``, or only a status."""
    error = body.get("error")
    if not isinstance(error, dict):
        return "", str(error or "")
    lists = (error.get(name) for name in ("errors", "details"))
    entries = [one for found in lists if isinstance(found, list) for one in found if isinstance(one, dict)]
    reason = next((one["reason"] for one in entries if one.get("reason")), error.get("status") or "")
    message = error.get("message") or next((one["message"] for one in entries if one.get("message")), "")
    return str(reason), str(message)


def retry_after_of(words: str, now: datetime) -> timedelta | None:
    """Gmail sends no Retry-After header: the time stands in the text. None if absent, past or nonsense."""
    if (found := _RETRY_AFTER.search(words)) is None:
        return None
    try:
        moment = datetime.fromisoformat(found[1])
        return bounded((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now)
    except (ValueError, OverflowError):
        return None
