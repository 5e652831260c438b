"""The durable queue. The only room with SQLModel, SQLAlchemy, alembic and aiosqlite."""

from gateway.spool.records import (
    AttemptRow,
    Claim,
    Leg,
    LegRow,
    MessageDetail,
    MessageRow,
    ProgressRow,
    Question,
    RecipientRow,
    Settlement,
    SpoolError,
    TokenRow,
)
from gateway.spool.store import Spool

__all__ = [
    "AttemptRow",
    "Claim",
    "Leg",
    "LegRow",
    "MessageDetail",
    "MessageRow",
    "ProgressRow",
    "Question",
    "RecipientRow",
    "Settlement",
    "Spool",
    "SpoolError",
    "TokenRow",
]
