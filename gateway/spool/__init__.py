"""The durable queue. The only room with SQLModel, SQLAlchemy, alembic and aiosqlite."""

from gateway.spool.records import (
    AttemptRow,
    Claim,
    Delivery,
    DeliveryRow,
    EventRow,
    Filter,
    MessageDetail,
    MessageRow,
    Poll,
    RecipientRow,
    Settlement,
    SpoolError,
    TokenRow,
)
from gateway.spool.store import Spool

__all__ = [
    "AttemptRow",
    "Claim",
    "Delivery",
    "DeliveryRow",
    "EventRow",
    "Filter",
    "MessageDetail",
    "MessageRow",
    "Poll",
    "RecipientRow",
    "Settlement",
    "Spool",
    "SpoolError",
    "TokenRow",
]
