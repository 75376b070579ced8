"""Version 2: labels that arrive later, and the indexes that finding and trimming rows need."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the table and the indexes; the rows that are there stay as they are."""
    op.create_table(
        "labels",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("image", sa.SmallInteger, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("patient", sa.Integer, nullable=False),
        sa.Column("truth", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_labels_request_id", "labels", ["request_id"])
    op.create_index("ix_predictions_request_id", "predictions", ["request_id"])
    op.create_index("ix_predictions_time", "predictions", ["time"])


def downgrade() -> None:
    """Remove the table and the indexes."""
    op.drop_index("ix_predictions_time", "predictions")
    op.drop_index("ix_predictions_request_id", "predictions")
    op.drop_table("labels")
