"""Version 1: models and predictions."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "models",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("names", sa.Text, nullable=False),
    )
    op.create_table(
        "predictions",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("image", sa.SmallInteger, nullable=False),
        sa.Column("model", sa.Integer, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("reasons", sa.String(200), nullable=False),
        *(
            sa.Column(name, sa.LargeBinary)
            for name in ("statistics", "sketch", "probabilities", "decisions", "latency")
        ),
    )


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("predictions")
    op.drop_table("models")
