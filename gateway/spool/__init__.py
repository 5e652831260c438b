"""The durable queue. The only room with SQLModel, SQLAlchemy, alembic and aiosqlite."""

from gateway.spool.again import Place, Standing, Way
from gateway.spool.alerts import Kept
from gateway.spool.backlog import Backlog
from gateway.spool.checked import AnswerRow, CheckRow
from gateway.spool.digests import Piece, Untold
from gateway.spool.doorbook import DoorBook
from gateway.spool.filters import STATES
from gateway.spool.listing import Cut, Filter, MessageRow, Page, Total
from gateway.spool.looking import Piles
from gateway.spool.records import (
    Claim,
    Delivery,
    DeliveryId,
    Late,
    MessageDetail,
    Notice,
    Offer,
    Poll,
    RecipientRow,
    RestRow,
    Settlement,
    SpoolError,
    TokenRow,
    Told,
)
from gateway.spool.refusals import RefusalFilter, RefusalPage, RefusalRow
from gateway.spool.returned import Back, HandedOver
from gateway.spool.scope import Scope
from gateway.spool.signins import SigninRow
from gateway.spool.space import FIXES
from gateway.spool.store import Spool
from gateway.spool.tally import Counts, Flow, Point

__all__ = [
    "FIXES",
    "STATES",
    "AnswerRow",
    "Back",
    "Backlog",
    "CheckRow",
    "Claim",
    "Counts",
    "Cut",
    "Delivery",
    "DeliveryId",
    "DoorBook",
    "Filter",
    "Flow",
    "HandedOver",
    "Kept",
    "Late",
    "MessageDetail",
    "MessageRow",
    "Notice",
    "Offer",
    "Page",
    "Piece",
    "Piles",
    "Place",
    "Point",
    "Poll",
    "RecipientRow",
    "RefusalFilter",
    "RefusalPage",
    "RefusalRow",
    "RestRow",
    "Scope",
    "Settlement",
    "SigninRow",
    "Spool",
    "SpoolError",
    "Standing",
    "TokenRow",
    "Told",
    "Total",
    "Untold",
    "Way",
]
