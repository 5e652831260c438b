"""All tables of the spool, wherever they are defined."""

from __future__ import annotations

from sqlmodel import SQLModel

from gateway.spool import (
    acts,
    alerts,
    asked,
    checked,
    cluster_tables,
    door_tables,
    lastuse,
    membership,
    rests,
    signins,
    tables,
)

DEFINED_IN = (acts, alerts, asked, checked, cluster_tables, door_tables, lastuse, membership, rests, signins, tables)
METADATA = SQLModel.metadata
