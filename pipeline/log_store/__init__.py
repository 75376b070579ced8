"""The database behind the prediction log: its tables, their migrations, and reading them in flat memory."""
