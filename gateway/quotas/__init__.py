"""Who has sent how much, and who has sent enough for now."""

from gateway.quotas.counts import Quotas, QuotaUse
from gateway.quotas.kept import QuotaFile

__all__ = ["QuotaFile", "QuotaUse", "Quotas"]
