"""Run by alembic: the migrations, on the connection that `pipeline.log_store.opening` hands over."""

from alembic import context

from pipeline.log_store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
