"""Alembic's folder: `env.py`, and a step for each version of the tables in `versions`."""
