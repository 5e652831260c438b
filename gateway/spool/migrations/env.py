"""Run by alembic (spool.sqlite, or ``alembic revision`` at a desk): the connection comes from the caller."""

from alembic import context
from sqlmodel import SQLModel

import gateway.spool.acts
import gateway.spool.alerts
import gateway.spool.checked
import gateway.spool.door_tables
import gateway.spool.lastuse
import gateway.spool.rests
import gateway.spool.signins
import gateway.spool.tables  # noqa: F401

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    transactional_ddl=True,  # alembic leaves it off for SQLite, but with our BEGIN IMMEDIATE a kill undoes all of it
)
with context.begin_transaction():
    context.run_migrations()
