"""Run by alembic (spool.sqlite, or ``alembic revision`` at a desk): the connection comes from the caller."""

from alembic import context

from gateway.spool.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
    transactional_ddl=True,  # alembic leaves it off for SQLite, but with our BEGIN IMMEDIATE a kill undoes all of it
)
with context.begin_transaction():
    context.run_migrations()
