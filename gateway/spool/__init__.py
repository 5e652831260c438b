"""The durable queue. The only room with SQLModel, SQLAlchemy, alembic and aiosqlite."""

from gateway.spool.checked import AnswerRow, CheckRow
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
from gateway.spool.refusals import RefusalFilter, RefusalPage, RefusalRow
from gateway.spool.space import FIXES
from gateway.spool.store import Spool
from gateway.spool.tally import Counts, Flow, Point

__all__ = [
    "FIXES",
    "AnswerRow",
    "CheckRow",
    "Claim",
    "Counts",
    "Delivery",
    "Filter",
    "Flow",
    "Late",
    "MessageDetail",
    "Notice",
    "Point",
    "Poll",
    "RecipientRow",
    "RefusalFilter",
    "RefusalPage",
    "RefusalRow",
    "Settlement",
    "Spool",
    "SpoolError",
    "TokenRow",
    "Told",
]
