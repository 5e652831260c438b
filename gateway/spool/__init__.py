"""The durable queue. The only room with SQLModel, SQLAlchemy, alembic and aiosqlite."""

from gateway.spool.records import (
    Claim,
    Delivery,
    Filter,
    Late,
    MessageDetail,
    Notice,
    Poll,
    RecipientRow,
    Settlement,
    SpoolError,
    TokenRow,
    Told,
)
from gateway.spool.space import FIXES
from gateway.spool.store import Spool

__all__ = [
    "FIXES",
    "Claim",
    "Delivery",
    "Filter",
    "Late",
    "MessageDetail",
    "Notice",
    "Poll",
    "RecipientRow",
    "Settlement",
    "Spool",
    "SpoolError",
    "TokenRow",
    "Told",
]
