"""A tabulated benchmark of a hybrid space: `run.py` makes the table, `table.py` reads it."""
